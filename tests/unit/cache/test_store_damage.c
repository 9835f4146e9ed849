// SPDX-License-Identifier: MIT
/* test_store_damage.c: whatever becomes of the files, what is read is right or a shorter beginning of it, and a person is told; a disk
 * that is full or read-only costs nothing that was there. */
#define _XOPEN_SOURCE 700
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_test.h"

#define FOLDER "test_store_damage_folder"
#define SMALL_DISK "test_store_small_disk"

static int32_t ids[TOKENS_MAX];
static char heard[1024];
static int n_heard;

static void hear(void *user, kvant_log_level level, const char *line) {
    (void)user;
    (void)level;
    n_heard++;
    snprintf(heard, sizeof heard, "%s", line);
}

static int clean(void **state) {
    (void)state;
    kvant_set_log(hear, NULL);
    heard[0] = '\0';
    n_heard = 0;
    return system("chmod -Rf u+w " FOLDER "; rm -rf " FOLDER);
}

/* ---- files ---- */

static char names[64][64];
static int n_names;

static bool add_name(void *user, const kvant_store_entry *e) {
    (void)user;
    assert_true(n_names < 64);
    snprintf(names[n_names++], sizeof *names, "%s.kvp", e->name);
    return true;
}

static void list_names(void) {
    n_names = 0;
    assert_int_equal(kvant_store_list(FOLDER, add_name, NULL, NULL), KVANT_OK);
}

static uint8_t *read_bytes(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*size + 1);
    assert_true(bytes && fread(bytes, 1, *size, f) == *size);
    fclose(f);
    return bytes;
}

static void write_bytes(const char *path, const uint8_t *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fwrite(bytes, 1, size, f) == size);
    assert_int_equal(fclose(f), 0);
}

/* Takes all: the good beginning of `expected` tokens, right, and the damaged file gone and told. */
static void expect_less(rig *r, const char *path, int64_t n, int64_t expected, const char *what, size_t where) {
    kvant_sequence *s = NULL;
    kvant_prefix_match match;
    kvant_error err = {0};
    n_heard = 0;
    expect_ok(kvant_store_take(r->store, NULL, 0, ids, n, &s, &match, &err), &err);
    if (match.n_usable != expected) fail_msg("%s at %zu: found %lld tokens, expected %lld", what, where, (long long)match.n_usable, (long long)expected);
    if (expected > 0) assert_true(is_right(r, s, ids));
    kvant_sequence_destroy(s);
    if (n_heard != 1 || !strstr(heard, path) || !strstr(heard, "removed")) fail_msg("%s at %zu: told %d times: %s", what, where, n_heard, heard);
    if (access(path, F_OK) == 0) fail_msg("%s at %zu: the file is still there", what, where);
}

static void every_changed_byte_and_every_cut_is_found(void **state) {
    (void)state;
    rig r;
    rig_create(&r, "affine2:32", 1, 1, 32);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 128, 0, 0);
    put(&r, ids, 64);
    list_names();
    assert_int_equal(n_names, 1);
    char path[160], other[160] = "";
    put(&r, ids, 128);
    snprintf(path, sizeof path, FOLDER "/%.40s", names[0]);
    snprintf(other, sizeof other, "%s", path); /* the first block; the second is the other one */
    list_names();
    for (int i = 0; i < n_names; i++)
        if (!strstr(other, names[i])) snprintf(path, sizeof path, FOLDER "/%.40s", names[i]);
    for (int which = 0; which < 2; which++) {
        const char *file = which ? other : path;
        size_t size;
        uint8_t *bytes = read_bytes(file, &size);
        for (size_t i = 0; i < size; i++) {
            bytes[i] ^= (uint8_t)(1 << i % 8);
            write_bytes(file, bytes, size);
            bytes[i] ^= (uint8_t)(1 << i % 8);
            expect_less(&r, file, 128, which ? 0 : 64, "a changed byte", i);
        }
        for (size_t i = 0; i < size; i++) {
            write_bytes(file, bytes, i);
            expect_less(&r, file, 128, which ? 0 : 64, "a cut", i);
        }
        uint8_t *longer = realloc(bytes, size + 1);
        assert_non_null(longer);
        longer[size] = 0;
        write_bytes(file, longer, size + 1);
        expect_less(&r, file, 128, which ? 0 : 64, "a byte more", size);
        print_message("%zu bytes changed, %zu lengths cut\n", size, size);
        free(longer);
        put(&r, ids, 128); /* made again */
        expect_take(&r, ids, 128, 128);
    }
    rig_close(&r);
}

static void damage_is_counted_by_verify_and_removed_on_request(void **state) {
    (void)state;
    rig r;
    kvant_store_counts counts;
    rig_create(&r, "bc5/bc4", 2, 2, 64);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 320, 0, 0);
    put(&r, ids, 320);
    list_names();
    char path[160];
    size_t size;
    snprintf(path, sizeof path, FOLDER "/%.40s", names[2]);
    uint8_t *bytes = read_bytes(path, &size);
    bytes[size - 100] ^= 4;
    write_bytes(path, bytes, size);
    free(bytes);
    assert_int_equal(kvant_store_verify(FOLDER, false, NULL, NULL, &counts, NULL), KVANT_OK);
    assert_int_equal(counts.n_files, 5);
    assert_int_equal(counts.n_damaged, 1);
    assert_int_equal(counts.n_removed, 0);
    assert_int_equal(kvant_store_verify(FOLDER, true, NULL, NULL, &counts, NULL), KVANT_OK);
    assert_int_equal(counts.n_removed, 1);
    assert_int_equal(kvant_store_verify(FOLDER, true, NULL, NULL, &counts, NULL), KVANT_OK);
    assert_int_equal(counts.n_damaged, 0);
    put(&r, ids, 320);
    expect_take(&r, ids, 320, 320);
    rig_close(&r);
}

static void a_file_under_another_name_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *kv;
        int fingerprint, n_layer;
        const char *says;
    } others[] = {{"bc4/bc4", 1, 2, "format of K in layer 0: found bc5, expected bc4"},
                  {"bc5/bc3", 1, 2, "format of V in layer 0: found bc4, expected bc3"},
                  {"bc5/bc4", 9, 2, "another model, calibration or precision (it says \"test model, test formats\")"},
                  {"bc5/bc4", 1, 3, "layers: found 2, expected 3"}};
    rig r;
    rig_create(&r, "bc5/bc4", 2, 2, 64);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 64, 0, 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        rig other;
        char from[160], to[160];
        kvant_error err = {0};
        assert_int_equal(system("rm -f " FOLDER "/*"), 0);
        put(&r, ids, 64);
        list_names();
        snprintf(from, sizeof from, FOLDER "/%.40s", names[0]);
        rig_create(&other, others[i].kv, others[i].n_layer, 2, 64);
        expect_ok(kvant_cache_create(other.ctx, &other.config, &other.cache, &err), &err);
        kvant_store_config config = {.folder = FOLDER, .fingerprint = {(uint8_t)others[i].fingerprint, 2, 3}};
        expect_ok(kvant_store_open(other.cache, &config, &other.store, &err), &err);
        /* where the other one would look for it */
        kvant_sequence *s = make_sequence(&other, ids, 64);
        expect_ok(kvant_store_put(other.store, s, ids, &err), &err);
        kvant_sequence_destroy(s);
        list_names();
        assert_int_equal(n_names, 2);
        snprintf(to, sizeof to, FOLDER "/%.40s", names[strstr(from, names[0]) ? 1 : 0]);
        assert_int_equal(rename(from, to), 0);
        assert_int_equal(kvant_store_match(other.store, ids, 64).n_usable, 0);
        if (!strstr(heard, others[i].says)) fail_msg("told: %s", heard);
        rig_close(&other);
    }
    rig_close(&r);
}

/* ---- places that cannot be written ---- */

static bool runs_as_root(void) { return geteuid() == 0; }

static void a_read_only_folder_is_read(void **state) {
    (void)state;
    rig r;
    kvant_error err = {0};
    rig_create(&r, "bc5/bc4", 2, 2, 64);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 320, 0, 0);
    put(&r, ids, 128);
    kvant_store_close(r.store);
    r.store = NULL;
    bool mounted = runs_as_root() && system("mount --bind " FOLDER " " FOLDER " 2>/dev/null && mount -o remount,bind,ro " FOLDER " 2>/dev/null") == 0;
    if (runs_as_root() && !mounted) {
        print_message("SKIPPED: root may write everywhere, and mounting is not permitted\n");
        rig_close(&r);
        return;
    }
    if (!mounted) assert_int_equal(chmod(FOLDER, 0500), 0);
    rig_open(&r, FOLDER, 0);
    expect_take(&r, ids, 320, 128);
    kvant_sequence *s = make_sequence(&r, ids, 320);
    kvant_status st = kvant_store_put(r.store, s, ids, &err);
    if (mounted) assert_int_equal(system("umount " FOLDER), 0);
    assert_int_equal(st, KVANT_EIO);
    assert_non_null(strstr(err.message, "2 of 5 blocks are kept"));
    kvant_sequence_destroy(s);
    expect_take(&r, ids, 320, 128);
    rig_close(&r);
}

static void a_limit_of_file_sizes_costs_nothing(void **state) {
    (void)state;
    rig r;
    kvant_error err = {0};
    struct rlimit before, small;
    rig_create(&r, "f16", 2, 2, 64);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 320, 0, 0);
    put(&r, ids, 128);
    kvant_sequence *s = make_sequence(&r, ids, 320);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 20000; /* of the 66,000 bytes of a block */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    kvant_status st = kvant_store_put(r.store, s, ids, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(st, KVANT_EIO);
    assert_non_null(strstr(err.message, "2 of 5 blocks are kept"));
    assert_non_null(strstr(err.message, "free some space"));
    assert_int_equal(system("ls " FOLDER " | grep -q tmp"), 256); /* nothing is left behind */
    expect_take(&r, ids, 320, 128);
    expect_ok(kvant_store_put(r.store, s, ids, &err), &err);
    kvant_sequence_destroy(s);
    expect_take(&r, ids, 320, 320);
    rig_close(&r);
}

static void a_full_disk_costs_nothing(void **state) {
    (void)state;
    rig r;
    kvant_error err = {0};
    if (!runs_as_root() || system("mkdir -p " SMALL_DISK " && mount -t tmpfs -o size=1m tmpfs " SMALL_DISK " 2>/dev/null") != 0) {
        print_message("SKIPPED: a small disk cannot be mounted here\n");
        return;
    }
    rig_create(&r, "f16", 4, 2, 64);
    make_ids(ids, 1024, 0, 0);
    kvant_store_config config = {.folder = SMALL_DISK "/kept", .label = "small"};
    expect_ok(kvant_cache_create(r.ctx, &r.config, &r.cache, &err), &err);
    kvant_status opened = kvant_store_open(r.cache, &config, &r.store, &err), st = KVANT_OK;
    kvant_prefix_match match = {0};
    kvant_store_counts counts = {0};
    int left = 0;
    kvant_sequence *s = make_sequence(&r, ids, 1024), *got = NULL;
    bool right = false;
    if (opened == KVANT_OK) {
        st = kvant_store_put(r.store, s, ids, &err);
        kvant_store_verify(config.folder, false, NULL, NULL, &counts, NULL);
        left = system("ls " SMALL_DISK "/kept | grep -q tmp");
        if (kvant_store_take(r.store, NULL, 0, ids, 1024, &got, &match, NULL) == KVANT_OK) right = is_right(&r, got, ids);
    }
    kvant_sequence_destroy(s);
    kvant_sequence_destroy(got);
    assert_int_equal(system("umount " SMALL_DISK " && rmdir " SMALL_DISK), 0); /* before anything can fail */
    assert_int_equal(opened, KVANT_OK);
    assert_int_equal(st, KVANT_EIO);
    print_message("%s\n", err.message);
    assert_non_null(strstr(err.message, "free some space"));
    assert_int_equal(left, 256);
    assert_int_equal(counts.n_damaged, 0);
    assert_true(counts.n_files >= 5);
    assert_int_equal(match.n_usable, 64 * counts.n_files);
    assert_true(right);
    rig_close(&r);
}

static void what_dead_processes_left_is_swept(void **state) {
    (void)state;
    rig r;
    rig_create(&r, "f16", 1, 1, 32);
    rig_open(&r, FOLDER, 0);
    make_ids(ids, 64, 0, 0);
    put(&r, ids, 64);
    list_names();
    char command[400];
    snprintf(command, sizeof command, "cd " FOLDER " && touch -d '11 minutes ago' %s.1-1-00.tmp notes.txt && touch %s.2-2-00.tmp", names[0], names[0]);
    assert_int_equal(system(command), 0);
    kvant_store_close(r.store);
    rig_open(&r, FOLDER, 0);
    assert_int_equal(system("ls " FOLDER " | grep -q 1-1-00.tmp"), 256);
    assert_int_equal(system("ls " FOLDER " | grep -q 2-2-00.tmp && test -f " FOLDER "/notes.txt"), 0); /* at work, or not ours */
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_changed_byte_and_every_cut_is_found, clean, clean),
        cmocka_unit_test_setup_teardown(damage_is_counted_by_verify_and_removed_on_request, clean, clean),
        cmocka_unit_test_setup_teardown(a_file_under_another_name_is_refused_by_name, clean, clean),
        cmocka_unit_test_setup_teardown(a_read_only_folder_is_read, clean, clean),
        cmocka_unit_test_setup_teardown(a_limit_of_file_sizes_costs_nothing, clean, clean),
        cmocka_unit_test_setup_teardown(a_full_disk_costs_nothing, clean, clean),
        cmocka_unit_test_setup_teardown(what_dead_processes_left_is_swept, clean, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
