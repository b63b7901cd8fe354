/* SPDX-License-Identifier: Apache-2.0 */
/* tiered filter: a safetensors file through a pipe and back. */
#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>

#include "core/model/numeric.h"
#include "core/model/safetensors.h"
#include "orchestrator/cmd.h"
#include "orchestrator/spec.h"

#define MAX_FILTERS 16
#define TILE        1024

struct request {
    const char *pipe, *in, *out, *folder;
    bool json;
};

struct session {
    struct tiered_plugins *plugins;
    struct tiered_use uses[MAX_FILTERS];
    size_t n_uses;
    struct tiered_hosting hosting;
    struct tiered_pool *pool;
    struct tiered_model *in, *out;
    struct tiered_metadata metadata;
    struct tiered_encoded *encoded;
    uint64_t bytes_in, bytes_after[MAX_FILTERS];
    double largest, mean_square;
};

static int add_filter(struct session *s, char *spec, struct tiered_error *err)
{
    while (*spec == ' ') {
        spec++;
    }
    for (size_t n = strlen(spec); n && spec[n - 1] == ' '; n--) {
        spec[n - 1] = 0;
    }
    if (!*spec) {
        return tiered_fail(err, TIERED_EINVAL,
                           "the pipe has an empty place: write "
                           "'NAME | NAME'");
    }
    if (s->n_uses == MAX_FILTERS) {
        return tiered_fail(err, TIERED_EINVAL, "more than %d filters", MAX_FILTERS);
    }
    if (spec_parse(s->plugins, spec, TIERED_FILTER, &s->uses[s->n_uses], err) < 0) {
        return -1;
    }
    s->n_uses++;
    return 0;
}

/* A pipe of nothing but spaces has no filters: it copies. */
static int parse_pipe(struct session *s, const char *text, struct tiered_error *err)
{
    TIERED_FREE char *copy = strdup(text);
    if (!copy) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (copy[strspn(copy, " ")] == 0) {
        return 0;
    }
    char *rest = copy, *spec;
    while ((spec = strsep(&rest, "|"))) {
        if (add_filter(s, spec, err) < 0) {
            return -1;
        }
    }
    return 0;
}

static int make_encoded(void *user, Tiered__V1__Head *head, struct tiered_encoded **ret,
                        struct tiered_error *err)
{
    (void)user;
    return tiered_encoded_begin(head, NULL, ret, err);
}

/* As on a link: what a lossy filter could not take is refused by tensor and index. */
static bool is_lossy(const struct session *s)
{
    bool lossy = false;
    for (size_t i = 0; i < s->n_uses; i++) {
        lossy = lossy || (s->uses[i].loaded->plugin.traits & TIERED_LOSSY);
    }
    return lossy;
}

static int send(struct session *s, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_pipe_destroyp) struct tiered_pipe *pipe = NULL;
    const struct tiered_encode_job job = {
        .data = s->in->data,
        .screen = is_lossy(s),
        .hosting = &s->hosting,
        .pool = s->pool,
        .make = make_encoded,
    };
    if (tiered_pipe_create(s->uses, s->n_uses, s->in->layout, &s->hosting, &pipe, err) <
            0 ||
        tiered_pipe_encode(pipe, &job, &s->encoded, err) < 0) {
        return -1;
    }
    const struct tiered_pipe_counts counts = tiered_pipe_counts(pipe);
    s->bytes_in = counts.bytes[0];
    memcpy(s->bytes_after, counts.bytes + 1, counts.n * sizeof(*counts.bytes));
    return tiered_encoded_seal(s->encoded, false, err);
}

static int receive(struct session *s, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_decoder_destroyp) struct tiered_decoder *decoder = NULL;
    return tiered_decoder_create(s->uses, s->n_uses, &s->hosting, s->encoded, &decoder,
                                 err) < 0
               ? -1
               : tiered_decoder_model(decoder, s->pool, &s->out, err);
}

/* Two NaNs are no error, nor are equal infinities; one against a number is one without
   bound. */
static double difference(double a, double b)
{
    if (a == b || (isnan(a) && isnan(b))) {
        return 0;
    }
    double d = fabs(a - b);
    return isnan(d) ? INFINITY : d;
}

static void measure(struct session *s)
{
    const struct tiered_layout *layout = s->in->layout;
    double a[TILE], b[TILE], squares = 0;
    uint64_t n = 0;
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        size_t width = tiered_dtype_size(block->dtype);
        for (uint64_t at = 0; at < block->n_elements; at += TILE) {
            uint64_t left = block->n_elements - at, offset = at * width;
            size_t m = left < TILE ? (size_t)left : TILE;
            offset += block->offset_bytes;
            tiered_to_f64(block->dtype, s->in->data + offset, m, a);
            tiered_to_f64(block->dtype, s->out->data + offset, m, b);
            for (size_t k = 0; k < m; k++) {
                double d = difference(a[k], b[k]);
                s->largest = d > s->largest ? d : s->largest;
                squares += d * d;
            }
        }
        n += block->n_elements;
    }
    s->mean_square = n ? squares / (double)n : 0;
}

static int filter(struct session *s, const struct request *r, struct tiered_error *err)
{
    assert(r->pipe); /* parse() asks for it */
    s->plugins = tiered_plugins_create(r->folder, err);
    if (!s->plugins || parse_pipe(s, r->pipe, err) < 0 ||
        tiered_safetensors_read(r->in, &s->in, &s->metadata, err) < 0 ||
        tiered_pool_create(0, &s->pool, err) < 0) {
        return -1;
    }
    tiered_hosting_init(&s->hosting, 0, "filter", NULL, NULL, NULL);
    if (send(s, err) < 0 || receive(s, err) < 0) {
        return -1;
    }
    measure(s);
    return tiered_safetensors_write(r->out, s->out, &s->metadata, err);
}

static void session_finish(struct session *s)
{
    tiered_encoded_unref(s->encoded);
    tiered_model_unref(s->in);
    tiered_model_unref(s->out);
    tiered_metadata_finish(&s->metadata);
    tiered_pool_destroy(s->pool);
    for (size_t i = 0; i < s->n_uses; i++) {
        spec_finish(&s->uses[i]);
    }
    tiered_plugins_destroy(s->plugins);
}

/* JSON has no infinity. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static double percent(const struct session *s, uint64_t bytes)
{
    return s->bytes_in ? 100.0 * (double)bytes / (double)s->bytes_in : 100;
}

static void print_text(const struct session *s, uint64_t wire)
{
    printf("%-17s  %" PRIu64 "\n", "bytes in", s->bytes_in);
    for (size_t k = 0; k < s->n_uses; k++) {
        char label[64];
        snprintf(label, sizeof(label), "after %s", s->uses[k].loaded->plugin.name);
        printf("%-17s  %" PRIu64 " (%.1f%%)\n", label, s->bytes_after[k],
               percent(s, s->bytes_after[k]));
    }
    printf("%-17s  %" PRIu64 " (%.1f%%)\n", "bytes on the wire", wire,
           percent(s, wire));
    printf("%-17s  %.9g\n", "largest error", s->largest);
    printf("%-17s  %.9g\n", "mean-square error", s->mean_square);
}

static void print_json(const struct session *s, uint64_t wire)
{
    json_t *filters = json_array();
    for (size_t k = 0; k < s->n_uses; k++) {
        json_array_append_new(
            filters, json_pack("{s:s, s:I}", "name", s->uses[k].loaded->plugin.name,
                               "bytes", (json_int_t)s->bytes_after[k]));
    }
    json_t *summary = json_pack(
        "{s:I, s:o, s:I, s:o, s:o}", "bytes_in", (json_int_t)s->bytes_in, "filters",
        filters, "bytes_on_the_wire", (json_int_t)wire, "largest_error",
        number(s->largest), "mean_square_error", number(s->mean_square));
    if (summary) {
        json_dumpf(summary, stdout, JSON_COMPACT);
        putchar('\n');
    }
    json_decref(summary);
}

static void print_result(const struct session *s, const struct request *r)
{
    uint64_t wire = tiered_encoded_bytes(s->encoded);
    if (r->json) {
        print_json(s, wire);
    } else {
        print_text(s, wire);
    }
}

/** EXIT_DONE and *ret filled, or -1 after --help, or EXIT_USAGE. */
static int parse(const struct tiered_command *self, int argc, char **argv,
                 struct request *ret)
{
    static const struct option flags[] = {
        {"pipe", required_argument, NULL, 'p'},
        {"output", required_argument, NULL, 'o'},
        {"json", no_argument, NULL, 'j'},
        {"plugins", required_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int flag;
    while ((flag = getopt_long(argc, argv, ":o:h", flags, NULL)) != -1) {
        switch (flag) {
        case 'h':
            cmd_help(self);
            return -1;
        case 'p':
            ret->pipe = optarg;
            break;
        case 'o':
            ret->out = optarg;
            break;
        case 'j':
            ret->json = true;
            break;
        case 'd':
            ret->folder = optarg;
            break;
        default:
            return cmd_bad_flag(self, flag, argv);
        }
    }
    if (!ret->pipe) {
        return cmd_usage(self, "--pipe is missing: which filters?");
    }
    if (!ret->out) {
        return cmd_usage(self, "-o is missing: where does the result go?");
    }
    if (argc - optind != 1) {
        return cmd_usage(self, "give one IN file");
    }
    ret->in = argv[optind];
    return EXIT_DONE;
}

static int run(const struct tiered_command *self, int argc, char **argv)
{
    struct request request = {0};
    int code = parse(self, argc, argv, &request);
    if (code != EXIT_DONE) {
        return code < 0 ? EXIT_DONE : code;
    }
    struct session session = {0};
    struct tiered_error err = {0};
    if (filter(&session, &request, &err) == 0) {
        print_result(&session, &request);
    } else {
        code = cmd_error(&err);
    }
    session_finish(&session);
    return code;
}

const struct tiered_command cmd_filter = {
    .name = "filter",
    .summary = "send a safetensors file through a pipe and back",
    .help =
        "usage: tiered filter --pipe 'NAME[:key=value,...] | NAME...' [--plugins DIR]\n"
        "           [--json] -o OUT IN\n"
        "\n"
        "Sends the tensors of IN through the filters, as a link would, and back "
        "through\n"
        "their inverses into OUT. Prints the bytes in, after each filter, and on the\n"
        "wire (blocks and their head), the largest and the mean-square error.\n"
        "\n"
        "  --pipe PIPE       filters in the sender's order; '' has none and copies.\n"
        "                    'tiered plugins show NAME' lists a filter's options\n"
        "  --plugins DIR     the folder of plugins; otherwise TIERED_PLUGINS, "
        "otherwise\n"
        "                    lib/tiered beside the program\n"
        "  --json            print the figures as JSON; null is an error without "
        "bound\n"
        "  -o, --output OUT  what the receiver gets\n"
        "\n"
        "Exit: 0 done, 1 the input failed and OUT is as before, 2 a wrong flag.\n",
    .run = run,
};
