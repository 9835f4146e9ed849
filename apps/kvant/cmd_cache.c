// SPDX-License-Identifier: MIT
/* cmd_cache.c: kvant cache ACTION: looks at, checks and trims a folder of kept prefixes. No model is needed, but for prompt caches of
 * mlx-lm (cache_prompt.c).
 *
 * Each action is a row of a table, as the commands of the program are. Labels come from files that anyone may have written, so
 * nothing of them reaches the terminal as a control character. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache_prompt.h"
#include "commands.h"
#include "json_output.h"
#include "options.h"
#include "report.h"

#define DAY 86400.0

static const char about_folder[] =
    "A run with --cache-dir DIR keeps what it read there: a file for every 64 tokens, quantized as in memory, found again by the\n"
    "tokens themselves. A later run that begins alike reads these files instead of computing. Any file may be deleted at any\n"
    "time: what is missing is computed again.";

/* ---- what is in a folder ---- */

typedef struct listing {
    kvant_store_entry *entries;
    int64_t n, room;
    bool out_of_memory;
} listing;

/* Blocks of one model and its settings. */
typedef struct family {
    const kvant_store_entry *first;
    int64_t n_blocks, n_prefixes, n_incomplete, longest;
    uint64_t bytes;
    double age; /* of the block that was used last */
} family;

static bool add_entry(void *user, const kvant_store_entry *e) {
    listing *l = user;
    if (l->n == l->room) {
        int64_t room = l->room ? 2 * l->room : 256;
        kvant_store_entry *entries = realloc(l->entries, (size_t)room * sizeof *entries);
        l->out_of_memory = !entries;
        if (!entries) return false;
        l->entries = entries;
        l->room = room;
    }
    l->entries[l->n++] = *e;
    return true;
}

/* By family, then by name; damaged ones, which have no family, come first. */
static int compare_entries(const void *a, const void *b) {
    const kvant_store_entry *x = a, *y = b;
    int order = strcmp(x->family, y->family);
    return order ? order : strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static int read_folder(const char *folder, listing *l) {
    kvant_error err;
    *l = (listing){0};
    kvant_status st = kvant_store_list(folder, add_entry, l, &err);
    if (st == KVANT_OK) {
        if (l->n > 0) qsort(l->entries, (size_t)l->n, sizeof *l->entries, compare_entries);
        return 0;
    }
    free(l->entries);
    return fail_with(1, "%s", l->out_of_memory ? "no memory for the list of files" : err.message);
}

/* Adds the blocks of one family, l->entries[from..to). A prefix ends in a block that no other block continues. */
static bool fill_family(const listing *l, int64_t from, int64_t to, family *f) {
    const char **parents = malloc((size_t)(to - from) * sizeof *parents);
    if (!parents) return false;
    *f = (family){.first = &l->entries[from], .n_blocks = to - from, .age = l->entries[from].age};
    for (int64_t i = from; i < to; i++)
        parents[i - from] = l->entries[i].parent;
    qsort(parents, (size_t)(to - from), sizeof *parents, compare_names);
    for (int64_t i = from; i < to; i++) {
        const kvant_store_entry *e = &l->entries[i];
        const char *name = e->name;
        f->n_prefixes += !bsearch(&name, parents, (size_t)(to - from), sizeof *parents, compare_names);
        f->n_incomplete += e->n_present < e->n_layer;
        f->bytes += e->bytes;
        if (e->first_token + KVANT_PAGE_TOKENS > f->longest) f->longest = e->first_token + KVANT_PAGE_TOKENS;
        if (e->age < f->age) f->age = e->age;
    }
    free(parents);
    return true;
}

/* *families is freed with free(). */
static int group_families(const listing *l, family **families, int64_t *n, int64_t *n_damaged) {
    *n = *n_damaged = 0;
    *families = malloc((size_t)(l->n + 1) * sizeof **families);
    if (!*families) return fail_with(1, "no memory for the list of models");
    while (*n_damaged < l->n && l->entries[*n_damaged].damaged)
        ++*n_damaged;
    for (int64_t from = *n_damaged, to; from < l->n; from = to) {
        for (to = from + 1; to < l->n && strcmp(l->entries[to].family, l->entries[from].family) == 0;)
            to++;
        if (!fill_family(l, from, to, &(*families)[(*n)++])) {
            free(*families);
            return fail_with(1, "no memory for the list of prefixes");
        }
    }
    return 0;
}

/* ---- text ---- */

/* Control characters, and those that reorder text, as question marks; in place. */
static char *make_harmless(char *text) {
    unsigned char *p = (unsigned char *)text;
    for (; *p; p++) {
        bool control = *p < 0x20 || *p == 0x7F || (*p == 0xC2 && p[1] >= 0x80 && p[1] < 0xA0);
        bool reorders = *p == 0xE2 && ((p[1] == 0x80 && p[2] >= 0x8E && p[2] <= 0xAE) || (p[1] == 0x81 && p[2] >= 0xA6 && p[2] <= 0xA9));
        if (control || reorders) *p = '?';
    }
    return text;
}

static const char *format_age(double seconds, char *buf, size_t size) {
    if (seconds < 60)
        snprintf(buf, size, "%.0f s ago", seconds < 0 ? 0 : seconds);
    else if (seconds < 3600)
        snprintf(buf, size, "%.0f min ago", seconds / 60);
    else if (seconds < 2 * DAY)
        snprintf(buf, size, "%.0f h ago", seconds / 3600);
    else
        snprintf(buf, size, "%.0f days ago", seconds / DAY);
    return buf;
}

static int end_output(int code) {
    if (fflush(stdout) != 0 || ferror(stdout)) return fail_with(1, "the output could not be written");
    return code;
}

/* ---- ls ---- */

static void print_families(const char *folder, const listing *l, const family *families, int64_t n, int64_t n_damaged) {
    static const char *const heads[] = {"model and formats", "prefixes", "longest", "tokens", "bytes", "used"};
    char label[201], bytes[32], age[32];
    uint64_t total = 0;
    int64_t n_incomplete = 0;
    table *t = table_create(6);
    if (!t) return;
    for (int i = 0; i < 6; i++)
        table_cell(t, "%s", heads[i]);
    for (int64_t i = 0; i < n; i++) {
        const family *f = &families[i];
        memcpy(label, f->first->label, sizeof label);
        table_cell(t, "%s", label[0] ? make_harmless(label) : f->first->family);
        table_cell(t, "%" PRId64, f->n_prefixes);
        table_cell(t, "%" PRId64, f->longest);
        table_cell(t, "%" PRId64, f->n_blocks * KVANT_PAGE_TOKENS);
        table_cell(t, "%s", format_bytes((double)f->bytes, bytes, sizeof bytes));
        table_cell(t, "%s", format_age(f->age, age, sizeof age));
        total += f->bytes;
        n_incomplete += f->n_incomplete;
    }
    if (n > 0) table_print(t, stdout);
    table_destroy(t);
    printf("%s%" PRId64 " files, %s\n", n > 0 ? "\n" : "", l->n - n_damaged, format_bytes((double)total, bytes, sizeof bytes));
    if (n_incomplete > 0)
        printf("%" PRId64 " of them lack pages that windows had dropped: prefixes that end there are not usable\n", n_incomplete);
    if (n_damaged > 0) printf("%" PRId64 " more are damaged: kvant cache verify %s --remove\n", n_damaged, folder);
}

static void print_blocks(const listing *l) {
    static const char *const heads[] = {"file", "tokens", "layers", "bytes", "used", "model and formats"};
    char label[201], age[32];
    table *t = table_create(6);
    if (!t) return;
    for (int i = 0; i < 6; i++)
        table_cell(t, "%s", heads[i]);
    for (int64_t i = 0; i < l->n; i++) {
        kvant_store_entry *e = &l->entries[i];
        memcpy(label, e->label, sizeof label);
        table_cell(t, "%s", e->name);
        table_cell(t, "%" PRId64 "..%" PRId64, e->first_token, e->first_token + KVANT_PAGE_TOKENS - 1);
        table_cell(t, "%d/%d", e->n_present, e->n_layer);
        table_cell(t, "%" PRIu64, e->bytes);
        table_cell(t, "%s", format_age(e->age, age, sizeof age));
        table_cell(t, "%s", e->damaged ? make_harmless(e->reason) : make_harmless(label));
    }
    table_print(t, stdout);
    table_destroy(t);
}

static json_t *json_block(const kvant_store_entry *e) {
    json_t *j = json_object();
    json_object_set_new(j, "name", json_text(e->name));
    json_object_set_new(j, "bytes", json_integer((json_int_t)e->bytes));
    json_object_set_new(j, "age_seconds", json_real(e->age));
    json_object_set_new(j, "damaged", json_boolean(e->damaged));
    if (e->damaged) {
        json_object_set_new(j, "reason", json_text(e->reason));
        return j;
    }
    json_object_set_new(j, "parent", json_text(e->parent));
    json_object_set_new(j, "family", json_text(e->family));
    json_object_set_new(j, "label", json_text(e->label));
    json_object_set_new(j, "first_token", json_integer(e->first_token));
    json_object_set_new(j, "n_tokens", json_integer(KVANT_PAGE_TOKENS));
    json_object_set_new(j, "n_layer", json_integer(e->n_layer));
    json_object_set_new(j, "n_layer_present", json_integer(e->n_present));
    return j;
}

static int print_listing_json(const char *folder, const listing *l, const family *families, int64_t n, int64_t n_damaged, bool each) {
    json_t *j = json_object(), *all = json_array(), *files = json_array();
    json_object_set_new(j, "folder", json_text(folder));
    json_object_set_new(j, "n_files", json_integer(l->n));
    json_object_set_new(j, "n_damaged", json_integer(n_damaged));
    for (int64_t i = 0; i < n; i++) {
        const family *f = &families[i];
        json_t *row = json_object();
        json_object_set_new(row, "family", json_text(f->first->family));
        json_object_set_new(row, "label", json_text(f->first->label));
        json_object_set_new(row, "n_prefixes", json_integer(f->n_prefixes));
        json_object_set_new(row, "longest_tokens", json_integer(f->longest));
        json_object_set_new(row, "n_tokens", json_integer(f->n_blocks * KVANT_PAGE_TOKENS));
        json_object_set_new(row, "n_files", json_integer(f->n_blocks));
        json_object_set_new(row, "n_incomplete", json_integer(f->n_incomplete));
        json_object_set_new(row, "bytes", json_integer((json_int_t)f->bytes));
        json_object_set_new(row, "age_seconds", json_real(f->age));
        json_array_append_new(all, row);
    }
    json_object_set_new(j, "families", all);
    for (int64_t i = 0; i < (each ? l->n : n_damaged); i++)
        json_array_append_new(files, json_block(&l->entries[i]));
    json_object_set_new(j, each ? "files" : "damaged", files);
    return json_print(j, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
}

static int run_ls(int argc, char **argv) {
    bool json = false, each = false;
    const char *folder[1];
    int n_folder = 0;
    const option flags[] = {
        {"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON on stdout"},
        {"--blocks", NULL, OPTION_FLAG, &each, 0, 0, NULL, "every file instead of a row for each model"},
    };
    int rc = options_parse("kvant cache ls DIR [--blocks] [--json]",
                           "Lists what a folder of kept prefixes holds, a row for each model with its formats: how many prefixes (beginnings\n"
                           "that nothing continues), the longest one, all tokens, bytes, and when one was used last.",
                           flags, 2, argc, argv, folder, 1, &n_folder);
    if (rc != 0) return rc < 0 ? 0 : rc;
    if (n_folder != 1) return fail_with(2, "which folder? It is the one that was given as --cache-dir: kvant cache ls DIR");
    listing l;
    family *families;
    int64_t n, n_damaged;
    if (read_folder(folder[0], &l) != 0) return 1;
    rc = group_families(&l, &families, &n, &n_damaged);
    if (rc == 0) {
        if (json)
            rc = print_listing_json(folder[0], &l, families, n, n_damaged, each);
        else if (each)
            print_blocks(&l);
        else
            print_families(folder[0], &l, families, n, n_damaged);
        free(families);
    }
    free(l.entries);
    return end_output(rc);
}

/* ---- show ---- */

typedef struct wanted_name {
    const char *beginning;
    char name[33];
    int n;
} wanted_name;

static bool match_name(void *user, const kvant_store_entry *e) {
    wanted_name *w = user;
    if (strncmp(e->name, w->beginning, strlen(w->beginning)) != 0) return true;
    memcpy(w->name, e->name, sizeof w->name);
    w->n++;
    return true;
}

/* DIR and the beginning of a name -> path. */
static int find_block(const char *folder, const char *beginning, char *path, size_t size) {
    char stem[64];
    snprintf(stem, sizeof stem, "%s", beginning);
    char *end = strstr(stem, ".kvp"); /* as verify and the folder itself show it */
    if (end) *end = '\0';
    wanted_name w = {.beginning = stem};
    kvant_error err;
    if (kvant_store_list(folder, match_name, &w, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    if (w.n == 0)
        return fail_with(1, "%.500s: no file's name begins with %.40s (kvant cache ls %.200s --blocks lists them)", folder, beginning, folder);
    if (w.n > 1) return fail_with(1, "%.500s: %d files' names begin with %.40s; give more of it", folder, w.n, beginning);
    int n = snprintf(path, size, "%s/%s.kvp", folder, w.name);
    return n > 0 && (size_t)n < size ? 0 : fail_with(1, "%.500s: the name of the folder is too long", folder);
}

static bool same_row(const kvant_store_page *a, const kvant_store_page *b) {
    return kvant_format_equal(&a->k, &b->k) && kvant_format_equal(&a->v, &b->v) && a->window == b->window && a->bytes == b->bytes &&
           a->is_present == b->is_present && a->n_exact == b->n_exact;
}

static void print_layers(const kvant_store_block *b) {
    static const char *const heads[] = {"layers", "K", "V", "window", "bytes", "there"};
    table *t = table_create(6);
    if (!t) return;
    for (int i = 0; i < 6; i++)
        table_cell(t, "%s", heads[i]);
    for (int from = 0, to; from < b->entry.n_layer; from = to) {
        const kvant_store_page *p = &b->pages[from];
        char k[KVANT_FORMAT_NAME_MAX], v[KVANT_FORMAT_NAME_MAX];
        for (to = from + 1; to < b->entry.n_layer && same_row(p, &b->pages[to]);)
            to++;
        kvant_format_name(&p->k, k);
        kvant_format_name(&p->v, v);
        if (to - from > 1)
            table_cell(t, "%d..%d", from, to - 1);
        else
            table_cell(t, "%d", from);
        table_cell(t, "%s", k);
        table_cell(t, "%s", v);
        if (p->window)
            table_cell(t, "%" PRId64, p->window);
        else
            table_cell(t, "all");
        table_cell(t, "%" PRIu64, p->bytes);
        table_cell(t, "%s", p->is_present ? "yes" : "no: dropped by the window");
    }
    table_print(t, stdout);
    table_destroy(t);
}

static void print_block(const char *path, kvant_store_block *b) {
    kvant_store_entry *e = &b->entry;
    char bytes[32];
    printf("%s\n", path);
    printf("  label        %s\n", make_harmless(e->label));
    printf("  tokens       %" PRId64 "..%" PRId64 " of its sequence\n", e->first_token, e->first_token + KVANT_PAGE_TOKENS - 1);
    printf("  ids          ");
    for (int i = 0; i < 12; i++)
        printf("%" PRId32 " ", b->ids[i]);
    printf("...\n");
    printf("  after        %s%s\n", e->first_token ? e->parent : "nothing: it is the first block", e->first_token ? ".kvp" : "");
    printf("  family       %s (model, calibration, formats, shapes and windows)\n", e->family);
    printf("  fingerprint  %s (model, calibration and precision)\n", b->fingerprint);
    printf("  shape        %d layers, %d KV heads, head_dim %d\n", e->n_layer, b->n_kv_head, b->head_dim);
    if (b->quantized_kv_start) printf("  quantized    from %d tokens on\n", b->quantized_kv_start);
    if (b->pages[0].n_exact) printf("  exact        the first %d tokens lie in full precision\n", b->pages[0].n_exact);
    printf("  size         %s (%" PRIu64 " bytes), %d of %d layers\n\n", format_bytes((double)e->bytes, bytes, sizeof bytes), e->bytes, e->n_present,
           e->n_layer);
    print_layers(b);
}

static int print_block_json(const char *path, const kvant_store_block *b) {
    json_t *j = json_block(&b->entry), *ids = json_array(), *layers = json_array();
    json_object_del(j, "age_seconds");
    json_object_set_new(j, "path", json_text(path));
    json_object_set_new(j, "fingerprint", json_text(b->fingerprint));
    json_object_set_new(j, "n_kv_head", json_integer(b->n_kv_head));
    json_object_set_new(j, "head_dim", json_integer(b->head_dim));
    json_object_set_new(j, "quantized_kv_start", json_integer(b->quantized_kv_start));
    for (int i = 0; i < KVANT_PAGE_TOKENS; i++)
        json_array_append_new(ids, json_integer(b->ids[i]));
    json_object_set_new(j, "ids", ids);
    for (int i = 0; i < b->entry.n_layer; i++) {
        const kvant_store_page *p = &b->pages[i];
        char k[KVANT_FORMAT_NAME_MAX], v[KVANT_FORMAT_NAME_MAX];
        json_t *row = json_object();
        kvant_format_name(&p->k, k);
        kvant_format_name(&p->v, v);
        json_object_set_new(row, "k", json_text(k));
        json_object_set_new(row, "v", json_text(v));
        json_object_set_new(row, "window", json_integer(p->window));
        json_object_set_new(row, "n_exact", json_integer(p->n_exact));
        json_object_set_new(row, "bytes", json_integer((json_int_t)p->bytes));
        json_object_set_new(row, "present", json_boolean(p->is_present));
        json_array_append_new(layers, row);
    }
    json_object_set_new(j, "layers", layers);
    return json_print(j, JSON_INDENT(2));
}

static int run_show(int argc, char **argv) {
    bool json = false;
    const char *rest[2];
    int n_rest = 0;
    char path[4096];
    kvant_store_block *b;
    kvant_error err;
    const option flags[] = {{"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON on stdout"}};
    int rc = options_parse("kvant cache show FILE | kvant cache show DIR NAME",
                           "Shows one file of a folder: whose tokens it holds, after which file, and in which formats. NAME is the beginning of\n"
                           "a file's name.",
                           flags, 1, argc, argv, rest, 2, &n_rest);
    if (rc != 0) return rc < 0 ? 0 : rc;
    if (n_rest == 0) return fail_with(2, "which file? kvant cache show FILE, or a folder and the beginning of a name");
    if (n_rest == 2 && (rc = find_block(rest[0], rest[1], path, sizeof path)) != 0) return rc;
    if (n_rest == 1) snprintf(path, sizeof path, "%s", rest[0]);
    if (kvant_store_block_read(path, &b, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    if (json)
        rc = print_block_json(path, b);
    else
        print_block(path, b);
    kvant_store_block_free(b);
    return end_output(rc);
}

/* ---- verify ---- */

typedef struct verification {
    progress bar;
    int64_t done, total;
    bool json;
    json_t *damaged;
} verification;

static bool count_entry(void *user, const kvant_store_entry *e) {
    (void)e;
    ++*(int64_t *)user;
    return true;
}

static bool hear_entry(void *user, const kvant_store_entry *e) {
    verification *v = user;
    progress_update(&v->bar, (double)++v->done, (double)v->total);
    if (!e->damaged) return true;
    kvant_store_entry copy = *e;
    if (v->json)
        json_array_append_new(v->damaged, json_block(e));
    else
        printf("%s.kvp: %s\n", e->name, make_harmless(copy.reason));
    return true;
}

static int run_verify(int argc, char **argv) {
    bool json = false, remove_damaged = false;
    const char *folder[1];
    int n_folder = 0;
    verification v = {0};
    kvant_store_counts counts;
    kvant_error err;
    const option flags[] = {
        {"--remove", NULL, OPTION_FLAG, &remove_damaged, 0, 0, NULL, "delete the files that are damaged"},
        {"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON on stdout"},
    };
    int rc = options_parse("kvant cache verify DIR [--remove]",
                           "Reads every file of a folder and checks every checksum. The exit code is 1 when something is damaged, removed or not.\n"
                           "A run does the same with each file that it uses, so this is for a disk that is under suspicion.",
                           flags, 2, argc, argv, folder, 1, &n_folder);
    if (rc != 0) return rc < 0 ? 0 : rc;
    if (n_folder != 1) return fail_with(2, "which folder? kvant cache verify DIR");
    if (kvant_store_list(folder[0], count_entry, &v.total, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    v.json = json;
    v.damaged = json_array();
    progress_begin(&v.bar, "verify");
    kvant_status st = kvant_store_verify(folder[0], remove_damaged, hear_entry, &v, &counts, &err);
    progress_end(&v.bar);
    if (st != KVANT_OK) {
        json_decref(v.damaged);
        return fail_with(1, "%s", err.message);
    }
    if (json) {
        json_t *j = json_object();
        json_object_set_new(j, "n_files", json_integer(counts.n_files));
        json_object_set_new(j, "bytes", json_integer((json_int_t)counts.bytes));
        json_object_set_new(j, "n_damaged", json_integer(counts.n_damaged));
        json_object_set_new(j, "n_removed", json_integer(counts.n_removed));
        json_object_set_new(j, "damaged", v.damaged);
        rc = json_print(j, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    } else {
        char bytes[32];
        json_decref(v.damaged);
        printf("%" PRId64 " files, %s: %" PRId64 " damaged", counts.n_files,
               format_bytes((double)counts.bytes, bytes, sizeof bytes), counts.n_damaged);
        if (counts.n_damaged > 0 && !remove_damaged) printf(" (--remove deletes them; they are computed again when they are needed)");
        if (counts.n_removed > 0) printf(", %" PRId64 " removed", counts.n_removed);
        printf("\n");
    }
    return end_output(rc ? rc : counts.n_damaged > 0);
}

/* ---- prune ---- */

static int run_prune(int argc, char **argv) {
    uint64_t most = UINT64_MAX;
    float days = 0;
    bool json = false;
    const char *folder[1];
    int n_folder = 0;
    kvant_store_counts counts;
    kvant_error err;
    const option flags[] = {
        {"--cache-disk", NULL, OPTION_SIZE, &most, 0, 0, "SIZE", "the most bytes that stay: 10G, 500M; 0: nothing stays"},
        {"--older-than", NULL, OPTION_FLOAT, &days, 0.001, 100000, "DAYS", "what was not used for so long goes, whatever the size"},
        {"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON on stdout"},
    };
    int rc = options_parse("kvant cache prune DIR --cache-disk SIZE [--older-than DAYS]",
                           "Deletes what was not used for the longest time until a folder is as small as asked. The end of a prefix goes before\n"
                           "its beginning, which others may share. Runs that use the folder meanwhile are not disturbed.",
                           flags, 3, argc, argv, folder, 1, &n_folder);
    if (rc != 0) return rc < 0 ? 0 : rc;
    if (n_folder != 1) return fail_with(2, "which folder? kvant cache prune DIR --cache-disk 1G");
    if (most == UINT64_MAX && days == 0) return fail_with(2, "what may stay? --cache-disk SIZE, --older-than DAYS, or both");
    if (kvant_store_prune(folder[0], most, (double)days * DAY, &counts, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    char removed[32], left[32];
    if (json) {
        json_t *j = json_object();
        json_object_set_new(j, "n_removed", json_integer(counts.n_removed));
        json_object_set_new(j, "removed_bytes", json_integer((json_int_t)counts.removed_bytes));
        json_object_set_new(j, "n_files", json_integer(counts.n_files - counts.n_removed));
        json_object_set_new(j, "bytes", json_integer((json_int_t)(counts.bytes - counts.removed_bytes)));
        return end_output(json_print(j, JSON_INDENT(2)));
    }
    printf("%" PRId64 " files deleted, %s; %" PRId64 " stay, %s\n", counts.n_removed,
           format_bytes((double)counts.removed_bytes, removed, sizeof removed),
           counts.n_files - counts.n_removed, format_bytes((double)(counts.bytes - counts.removed_bytes), left, sizeof left));
    return end_output(0);
}

/* ---- the actions ---- */

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} actions[] = {
    {"ls", "what a folder of kept prefixes holds", run_ls},
    {"show", "one of its files", run_show},
    {"verify", "check every checksum", run_verify},
    {"prune", "delete what was not used for the longest time", run_prune},
    {"import", "keep a prompt cache of mlx-lm", cache_import},
    {"export", "write a prompt as a prompt cache of mlx-lm", cache_export},
};
#define N_ACTIONS (sizeof actions / sizeof *actions)

static void print_actions(void) {
    printf("Usage: kvant cache ACTION DIR [flags]\n\nLooks at, checks and trims a folder of kept prefixes.\n%s\n\nActions\n", about_folder);
    for (size_t i = 0; i < N_ACTIONS; i++)
        printf("  %-12s%s\n", actions[i].name, actions[i].help);
    printf("\nExamples\n"
           "  kvant run -m model.gguf -f manual.txt --cache-dir ~/prefixes -p \"What is it about?\"\n"
           "  kvant cache ls ~/prefixes\n"
           "  kvant cache prune ~/prefixes --cache-disk 2G --older-than 30\n"
           "  kvant cache import manual.safetensors -m ~/models/folder -f manual.txt --cache-dir ~/prefixes\n\n"
           "kvant cache ACTION --help lists the flags of an action.\n");
}

int cmd_cache(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_actions();
        return argc > 1 ? 0 : 2;
    }
    for (size_t i = 0; i < N_ACTIONS; i++) {
        static char full[32];
        if (strcmp(name, actions[i].name) != 0) continue;
        snprintf(full, sizeof full, "cache %s", name);
        argv[1] = full;
        return actions[i].run(argc - 1, argv + 1);
    }
    size_t nearest = 0;
    for (size_t i = 1; i < N_ACTIONS; i++)
        if (name_distance(name, actions[i].name) < name_distance(name, actions[nearest].name)) nearest = i;
    return fail_with(2, "kvant cache has no action %.60s; did you mean %s?", name, actions[nearest].name);
}
