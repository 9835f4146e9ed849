// SPDX-License-Identifier: MIT
/* test_store_processes.c: processes that write into one folder are killed at any moment, and several write, read and prune one at a
 * time: whatever is there reads back, and is right.
 *
 * The program starts itself as the other processes: test_store_processes write SEED SECONDS (0: until it is killed, a minute at most). */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store_test.h"

#define FOLDER "test_store_processes_folder"
#define KILLS 200
#define CONVERSATIONS 12
#define LENGTH 400
#define LIMIT 900000 /* bytes: less than all conversations take */
#define SECONDS 3

static int32_t ids[TOKENS_MAX];
static uint64_t seed;
static int n_heard;

static int random_below(int n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (uint64_t)n);
}

static double seconds(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void sleep_for(double s) {
    struct timespec ts = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&ts, NULL);
}

static void hear(void *user, kvant_log_level level, const char *line) {
    (void)user;
    (void)level;
    n_heard++;
    fprintf(stderr, "%s\n", line);
}

/* Layers with a window: blocks are written again when a shorter sequence has what a longer one had dropped. */
static void open_rig(rig *r) {
    kvant_set_log(hear, NULL);
    rig_create(r, "bc5/bc4 affine4:64", 2, 2, 64);
    r->windows[1] = 100;
    rig_open(r, FOLDER, LIMIT);
}

/* 0: as it should be; else what was wrong. */
static int use_store(rig *r, bool writes) {
    kvant_error err = {0};
    kvant_sequence *s = NULL;
    kvant_prefix_match match;
    int n = 64 + random_below(LENGTH - 64);
    make_ids(ids, LENGTH, random_below(CONVERSATIONS), 130);
    if (writes) {
        s = make_sequence(r, ids, n);
        kvant_status st = kvant_store_put(r->store, s, ids, &err);
        kvant_sequence_destroy(s);
        if (st != KVANT_OK) fprintf(stderr, "%s\n", err.message);
        if (st != KVANT_OK) return 10;
    }
    if (kvant_store_take(r->store, NULL, 0, ids, LENGTH, &s, &match, &err) != KVANT_OK) return 11;
    bool right = is_right(r, s, ids);
    kvant_sequence_destroy(s);
    return !right ? 12 : n_heard > 0 ? 13 : 0;
}

static int run_writer(const char *first_seed, const char *how_long) {
    rig r;
    int rc = 0;
    double wanted = atof(how_long), end = seconds() + (wanted > 0 ? wanted : 60);
    seed = (strtoull(first_seed, NULL, 10) + 1) * 0x9E3779B97F4A7C15u; /* neighbours begin far apart */
    open_rig(&r);
    if (write(STDOUT_FILENO, "!", 1) != 1) return 20; /* ready */
    while (rc == 0 && seconds() < end) {
        rc = use_store(&r, true);
        kvant_store_counts counts;
        if (wanted > 0 && random_below(8) == 0 && kvant_store_prune(FOLDER, LIMIT / 2, 0, &counts, NULL) != KVANT_OK) rc = 14;
        if (wanted > 0 && random_below(8) == 0 &&
            (kvant_store_verify(FOLDER, false, NULL, NULL, &counts, NULL) != KVANT_OK || counts.n_damaged > 0))
            rc = 15;
    }
    if (wanted > 0) rig_close(&r);
    return rc;
}

/* Starts a writer and waits until it writes. */
static pid_t start_writer(uint64_t with_seed, const char *how_long) {
    int ends[2];
    char number[32], ready;
    snprintf(number, sizeof number, "%llu", (unsigned long long)with_seed);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", "test_store_processes", "write", number, how_long, (char *)NULL);
        _exit(30);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &ready, 1), 1);
    close(ends[0]);
    return child;
}

static int clean(void **state) {
    (void)state;
    n_heard = 0;
    return system("rm -rf " FOLDER);
}

static void killed_writers_leave_nothing_damaged(void **state) {
    (void)state;
    rig r;
    kvant_store_counts counts = {0};
    print_message("seed %llu\n", (unsigned long long)seed);
    open_rig(&r);
    for (int i = 0; i < KILLS; i++) {
        pid_t child = start_writer(seed + (uint64_t)i, "0");
        sleep_for(random_below(60000) / 1e6);
        int status;
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status)) fail_msg("writer %d ended by itself: %d", i, WEXITSTATUS(status));
        assert_int_equal(kvant_store_verify(FOLDER, false, NULL, NULL, &counts, NULL), KVANT_OK);
        if (counts.n_damaged > 0) fail_msg("kill %d: %lld of %lld files are damaged", i, (long long)counts.n_damaged, (long long)counts.n_files);
        int rc = use_store(&r, false);
        if (rc != 0) fail_msg("kill %d: a reader says %d", i, rc);
    }
    int left = system("echo `ls " FOLDER " | grep -c tmp` temporary files were left by them");
    assert_int_equal(left, 0);
    print_message("%d writers killed, %lld files read back\n", KILLS, (long long)counts.n_files);
    assert_true(counts.n_files > 0);
    rig_close(&r);
}

static void processes_share_a_folder(void **state) {
    (void)state;
    rig r;
    pid_t children[3];
    char how_long[16];
    snprintf(how_long, sizeof how_long, "%d", SECONDS);
    open_rig(&r);
    for (int i = 0; i < 3; i++)
        children[i] = start_writer(seed + 1000 + (uint64_t)i, how_long);
    double end = seconds() + SECONDS;
    int n = 0;
    for (; seconds() < end; n++) {
        int rc = use_store(&r, n % 4 == 0);
        if (rc != 0) fail_msg("round %d: found %d", n, rc);
    }
    for (int i = 0; i < 3; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("process %d: status %d", i, status);
    }
    kvant_store_counts counts;
    assert_int_equal(kvant_store_verify(FOLDER, false, NULL, NULL, &counts, NULL), KVANT_OK);
    assert_int_equal(counts.n_damaged, 0);
    print_message("%d rounds beside 3 processes, %lld files\n", n, (long long)counts.n_files);
    rig_close(&r);
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "write") == 0) return run_writer(argv[2], argv[3]);
    seed = argc == 2 ? strtoull(argv[1], NULL, 10) : 20240607;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(killed_writers_leave_nothing_damaged, clean, clean),
        cmocka_unit_test_setup_teardown(processes_share_a_folder, clean, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
