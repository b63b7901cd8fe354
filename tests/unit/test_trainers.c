/* SPDX-License-Identifier: Apache-2.0 */
/* softmax and mlp through their plugin interface: gradients, steps, figures, replay. */
#include "trainer_fixture.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "core/options/options.h"
#include "core/plugins/plugins.h"

#define FASHION_MNIST "/usr/share/datasets/fashion-mnist"

/* n examples of 3 numbers in 3 classes, which overlap a little. */
static const char *put_toy(const char *folder, int n)
{
    char text[65536] = "a,b,c,kind\n";
    size_t used = strlen(text);
    for (int i = 0; i < n; i++) {
        int kind = i % 3;
        used +=
            (size_t)snprintf(text + used, sizeof(text) - used, "%.3f,%.3f,%.3f,%s\n",
                             (kind == 0) + sin(i * 1.7) * 0.3,
                             (kind == 1) + sin(i * 2.3) * 0.3, sin(i * 0.9) * 0.3,
                             kind == 0   ? "oven"
                             : kind == 1 ? "press"
                                         : "mill");
        assert_true(used < sizeof(text) - 100);
    }
    return put_text(folder, "toy.csv", text);
}

/* All examples in one batch, plain steps, nothing held out. */
static struct tiered_trainer_config plain_config(const char *data, int64_t steps)
{
    struct tiered_trainer_config config = fixture_config(data);
    config.local_steps = steps;
    config.steps_given = true;
    config.batch_size = 1024;
    config.momentum = 0;
    config.test_fraction = 0;
    config.lr = 0.5;
    return config;
}

static size_t n_numbers(const struct leaf *leaf)
{
    return leaf->manifest->data_bytes / sizeof(float);
}

static void test_describe_themselves(void **state)
{
    static const char *const names[] = {
        "data",         "format",        "label",      "partition", "shard",
        "local_epochs", "local_steps",   "batch_size", "lr",        "momentum",
        "mu",           "test_fraction", "hidden"};
    static const char *const defaults[] = {
        NULL,  NULL, NULL,  "iid",  "{index}/{count}", "1", NULL, "32", "0.05",
        "0.9", "0",  "0.1", "[128]"};
    (void)state;
    for (int mlp = 0; mlp < 2; mlp++) {
        const struct tiered_plugin *plugin = fixture_plugin(mlp ? "mlp" : "softmax");
        assert_int_equal(plugin->kind, TIERED_TRAINER);
        assert_string_equal(plugin->name, mlp ? "mlp" : "softmax");
        assert_int_equal(plugin->n_options, 12 + mlp);
        for (size_t i = 0; i < plugin->n_options; i++) {
            assert_string_equal(plugin->options[i].name, names[i]);
            if (defaults[i]) {
                assert_string_equal(plugin->options[i].fallback, defaults[i]);
            } else {
                assert_null(plugin->options[i].fallback);
            }
        }
    }
}

/* What users write, through the host's reader of options. */
static void test_options_fill(void **state)
{
    char path[512];
    struct tiered_loaded loaded;
    struct tiered_config config;
    struct tiered_error err = {0};
    (void)state;
    snprintf(path, sizeof(path), "%s/mlp.so", getenv("TIERED_PLUGINS"));
    if (tiered_plugin_open(path, &loaded, &err) < 0 ||
        tiered_config_from_json(&loaded.plugin, "{\"data\": \"d\"}", &config, &err) <
            0) {
        fail_msg("%s", err.text);
    }
    const struct tiered_trainer_config *c = config.data;
    assert_string_equal(c->data, "d");
    assert_string_equal(c->shard, "{index}/{count}");
    assert_true(!c->format_given && !c->epochs_given && !c->steps_given);
    assert_true(c->partition == TIERED_SPLIT_IID && !c->label && c->local_epochs == 1);
    assert_true(c->batch_size == 32 && c->lr == 0.05 && c->momentum == 0.9);
    assert_true(c->mu == 0 && c->test_fraction == 0.1);
    assert_true(c->hidden.n == 1 && c->hidden.items[0] == 128);
    tiered_config_finish(&config);
    if (tiered_config_from_json(&loaded.plugin,
                                "{\"data\": \"d\", \"format\": \"safetensors\", "
                                "\"partition\": {\"dirichlet\": {\"alpha\": 0.5}}, "
                                "\"local_steps\": 7, \"hidden\": [64, 32]}",
                                &config, &err) < 0) {
        fail_msg("%s", err.text);
    }
    c = config.data;
    assert_true(c->format_given && c->format == TIERED_SAFETENSORS);
    assert_true(c->partition == TIERED_SPLIT_DIRICHLET && c->alpha == 0.5);
    assert_true(c->steps_given && !c->epochs_given && c->local_steps == 7);
    assert_true(c->hidden.n == 2 && c->hidden.items[1] == 32);
    tiered_config_finish(&config);
    assert_int_equal(tiered_config_from_json(&loaded.plugin,
                                             "{\"data\": \"d\", \"partition\": "
                                             "\"dirichlet\"}",
                                             &config, &err),
                     -1);
    assert_non_null(strstr(err.text, "'partition.dirichlet.alpha'"));
    tiered_loaded_finish(&loaded);
}

static void test_manifest(void **state)
{
    const int64_t hidden[] = {5, 4};
    static const char *const names[] = {"fc1.weight", "fc1.bias",   "fc2.weight",
                                        "fc2.bias",   "fc3.weight", "fc3.bias"};
    static const uint64_t shapes[][2] = {{5, 3}, {5}, {4, 5}, {4}, {3, 4}, {3}};
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 60));
    struct leaf leaf;
    config.hidden = (struct tiered_integers){2, hidden};
    leaf_open(&leaf, "mlp", &config, 0, 1);
    assert_int_equal(leaf.manifest->n_tensors, 6);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < 6; i++) {
        const struct tiered_tensor *tensor = &leaf.manifest->tensors[i];
        assert_string_equal(tensor->name, names[i]);
        assert_int_equal(tensor->rank, i % 2 ? 1 : 2);
        assert_int_equal(tensor->shape[0], shapes[i][0]);
        assert_int_equal(tensor->shape[1], shapes[i][1]);
        assert_int_equal(tensor->offset_bytes, offset);
        offset += tensor->size_bytes;
    }
    assert_int_equal(leaf.manifest->data_bytes, offset);
    assert_int_equal(offset, 4 * (20 + 24 + 15));
    leaf_close(&leaf);
}

/* A node that only supplies the model asks for no data, and no load. */
static void test_manifest_without_load(void **state)
{
    const struct tiered_trainer_ops *ops = fixture_plugin("softmax")->ops;
    const struct tiered_place place = {sizeof(place), "cloud-0", 0, 1, 1};
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 60));
    const struct tiered_manifest *manifest;
    struct fixture_host host;
    float model[12];
    void *trainer;
    fixture_host_init(&host, "cloud-0");
    assert_int_equal(ops->init(&host.host, &config, &place, &trainer, NULL), 0);
    assert_int_equal(ops->manifest(trainer, &manifest, NULL), 0);
    assert_int_equal(manifest->data_bytes, sizeof(model));
    assert_string_equal(manifest->tensors[0].name, "fc.weight");
    assert_int_equal(ops->initial(trainer, &host.host, model, NULL), 0);
    struct tiered_error err = {0};
    struct tiered_train_result result = {.size = sizeof(result)};
    assert_int_equal(ops->train(trainer, &host.host, model, model, &result, &err), -1);
    assert_int_equal(err.code, TIERED_ESTATE);
    ops->destroy(trainer);
}

static void test_initial_follows_the_seed(void **state)
{
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 60));
    struct leaf leaf;
    leaf_open(&leaf, "softmax", &config, 0, 1);
    float *a = leaf_initial(&leaf), *b = leaf_initial(&leaf);
    leaf.host.path = "2";
    float *c = leaf_initial(&leaf);
    assert_memory_equal(a, b, leaf.manifest->data_bytes);
    assert_memory_not_equal(a, c, leaf.manifest->data_bytes);
    for (size_t i = 0; i < 9; i++) {
        assert_true(a[i] >= -1 && a[i] <= 1); /* Glorot: sqrt(6 / (3 + 3)) = 1 */
    }
    assert_true(a[9] == 0 && a[10] == 0 && a[11] == 0);
    free(a);
    free(b);
    free(c);
    leaf_close(&leaf);
}

static double train_loss(struct leaf *leaf, const float *w, float *scratch)
{
    struct tiered_train_result result = leaf_train(leaf, w, scratch);
    return metric(&result, "train_loss");
}

/* One plain step shows the gradient, (w0 - w1) / lr. Moving one weight up and down
   shows what it should be; where ReLU bends in between, it lies between the two slopes.
 */
static void check_gradient(const char *plugin,
                           const struct tiered_trainer_config *config)
{
    const float h = 1.0f / 512;
    struct leaf leaf;
    leaf_open(&leaf, plugin, config, 0, 1);
    float *w = leaf_initial(&leaf), *out = leaf_model(&leaf),
          *scratch = leaf_model(&leaf);
    double loss = train_loss(&leaf, w, out);
    for (size_t i = 0; i < n_numbers(&leaf); i++) {
        float kept = w[i];
        double gradient = ((double)kept - out[i]) / config->lr;
        w[i] = kept + h;
        double up = (train_loss(&leaf, w, scratch) - loss) / (w[i] - kept);
        w[i] = kept - h;
        double down = (loss - train_loss(&leaf, w, scratch)) / (kept - w[i]);
        w[i] = kept;
        double slack = 5e-4 + 2e-3 * fabs(up); /* curvature */
        if (gradient < fmin(up, down) - slack || gradient > fmax(up, down) + slack) {
            fail_msg("%s: weight %zu: %g, but the loss says %g below and %g above",
                     plugin, i, gradient, down, up);
        }
    }
    free(w);
    free(out);
    free(scratch);
    leaf_close(&leaf);
}

static void test_gradients(void **state)
{
    const int64_t hidden[] = {6, 20};
    struct tiered_trainer_config config = plain_config(put_toy(*state, 30), 1);
    check_gradient("softmax", &config);
    config.hidden = (struct tiered_integers){2, hidden};
    check_gradient("mlp", &config);
    config.hidden.n = 0;
    check_gradient("mlp", &config);
}

static float *train_steps(const char *data, int64_t steps, double momentum, double mu)
{
    struct tiered_trainer_config config = plain_config(data, steps);
    struct leaf leaf;
    config.momentum = momentum;
    config.mu = mu;
    leaf_open(&leaf, "softmax", &config, 0, 1);
    float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
    leaf_train(&leaf, w, out);
    leaf_close(&leaf);
    free(w);
    return out;
}

/* Of two steps with all examples in one batch, only the second feels what came before:
   w2 = w1 - lr (g2 + momentum g1 + mu (w1 - w0)), lr = 1/2. */
static void test_momentum_and_proximal_term(void **state)
{
    const char *data = put_toy(*state, 30);
    struct tiered_trainer_config config = plain_config(data, 1);
    struct leaf leaf;
    leaf_open(&leaf, "softmax", &config, 0, 1);
    float *w0 = leaf_initial(&leaf);
    leaf_close(&leaf);
    float *w1 = train_steps(data, 1, 0, 0), *w2 = train_steps(data, 2, 0, 0);
    float *heavy = train_steps(data, 2, 0.5, 0), *pulled = train_steps(data, 2, 0, 0.8);
    for (int i = 0; i < 12; i++) {
        double moved = (double)w1[i] - w0[i]; /* = -lr g1 */
        assert_true(fabs(heavy[i] - (w2[i] + 0.5 * moved)) < 1e-6);
        assert_true(fabs(pulled[i] - (w2[i] - 0.5 * 0.8 * moved)) < 1e-6);
    }
    assert_memory_not_equal(w2, pulled, 48);
    free(w0);
    free(w1);
    free(w2);
    free(heavy);
    free(pulled);
}

static void test_replay_gives_the_same_bits(void **state)
{
    const int64_t hidden = 9;
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 200));
    struct leaf leaf, again;
    config.hidden = (struct tiered_integers){1, &hidden};
    config.local_epochs = 3;
    config.mu = 0.1;
    leaf_open(&leaf, "mlp", &config, 1, 2);
    leaf_open(&again, "mlp", &config, 1, 2);
    float *w = leaf_initial(&leaf), *a = leaf_model(&leaf), *b = leaf_model(&leaf);
    leaf_train(&leaf, w, a);
    leaf_train(&again, w, b);
    assert_memory_equal(a, b, leaf.manifest->data_bytes);
    again.host.path = "2"; /* another round, another order */
    leaf_train(&again, w, b);
    assert_memory_not_equal(a, b, leaf.manifest->data_bytes);
    leaf_train(&leaf, w, b); /* no state is left from call to call */
    assert_memory_equal(a, b, leaf.manifest->data_bytes);
    free(w);
    free(a);
    free(b);
    leaf_close(&leaf);
    leaf_close(&again);
}

static void test_learns(void **state)
{
    const int64_t hidden = 16;
    for (int mlp = 0; mlp < 2; mlp++) {
        struct tiered_trainer_config config = fixture_config(put_toy(*state, 600));
        struct leaf leaf;
        config.hidden = (struct tiered_integers){(size_t)mlp, &hidden};
        config.local_epochs = 20;
        leaf_open(&leaf, mlp ? "mlp" : "softmax", &config, 0, 1);
        float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
        struct tiered_train_result before = leaf_evaluate(&leaf, w),
                                   trained = leaf_train(&leaf, w, out),
                                   after = leaf_evaluate(&leaf, out);
        assert_int_equal(trained.num_examples, 540);
        assert_int_equal(trained.local_steps, 20 * 17); /* 16 full batches and a rest */
        assert_int_equal(after.num_examples, 60);
        assert_true(metric(&after, "accuracy") > 0.9);
        assert_true(metric(&trained, "train_accuracy") > 0.9);
        assert_true(metric(&after, "loss") < metric(&before, "loss"));
        assert_true(leaf.host.progress == 1);
        free(w);
        free(out);
        leaf_close(&leaf);
    }
}

/* Averaged by examples, the leaves' figures are those of the whole test set, held out
   or apart; and the leaves' training examples add up. */
static void check_parts(const struct tiered_trainer_config *config, uint64_t n_train,
                        uint64_t n_test)
{
    struct leaf whole, part;
    double accuracy = 0, loss = 0;
    uint64_t trained = 0, tested = 0;
    leaf_open(&whole, "softmax", config, 0, 1);
    float *w = leaf_initial(&whole), *out = leaf_model(&whole);
    leaf_train(&whole, w, out);
    struct tiered_train_result all = leaf_evaluate(&whole, out);
    assert_int_equal(all.num_examples, n_test);
    for (uint32_t i = 0; i < 7; i++) {
        leaf_open(&part, "softmax", config, i, 7);
        struct tiered_train_result result = leaf_evaluate(&part, out);
        double n = (double)result.num_examples;
        accuracy += metric(&result, "accuracy") * n / (double)n_test;
        loss += metric(&result, "loss") * n / (double)n_test;
        tested += result.num_examples;
        trained += leaf_train(&part, out, w).num_examples;
        leaf_close(&part);
    }
    assert_int_equal(tested, n_test);
    assert_int_equal(trained, n_train);
    assert_true(fabs(accuracy - metric(&all, "accuracy")) < 1e-9);
    assert_true(fabs(loss - metric(&all, "loss")) < 1e-6);
    free(w);
    free(out);
    leaf_close(&whole);
}

static void test_parts_make_the_whole(void **state)
{
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 500));
    for (int split = TIERED_SPLIT_IID; split <= TIERED_SPLIT_DIRICHLET; split++) {
        config.partition = split;
        config.alpha = 0.5;
        check_parts(&config, 450, 50);
    }
    char from[256], to[256];
    snprintf(from, sizeof(from), "%s/toy.csv", (char *)*state);
    snprintf(to, sizeof(to), "%s/test.csv", (char *)*state);
    put_toy(*state, 95);
    assert_int_equal(rename(from, to), 0);
    snprintf(to, sizeof(to), "%s/train.csv", (char *)*state);
    put_toy(*state, 300);
    assert_int_equal(rename(from, to), 0);
    config.data = *state;
    check_parts(&config, 300, 95);
}

static void test_counts_what_was_drawn(void **state)
{
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 100));
    static const struct {
        int64_t steps;
        uint64_t num_examples;
    } cases[] = {{1, 32}, {2, 64}, {3, 90}, {4, 90}};
    config.steps_given = true;
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct leaf leaf;
        config.local_steps = cases[i].steps;
        leaf_open(&leaf, "softmax", &config, 0, 1);
        float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
        struct tiered_train_result result = leaf_train(&leaf, w, out);
        assert_int_equal(result.num_examples, cases[i].num_examples);
        assert_int_equal(result.local_steps, cases[i].steps);
        free(w);
        free(out);
        leaf_close(&leaf);
    }
}

/* FedNova's ||a||_1 after Wang et al. 2020: of momentum m, and of mu, alone; and of
   plain SGD, whose is its steps. */
static void test_tells_its_length(void **state)
{
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 100));
    const double lr = 0.05, m = 0.9, pull = lr * 2;
    const struct {
        double momentum, mu, want;
        int64_t steps;
    } cases[] = {{0, 0, 5, 5},
                 {m, 0, (7 - m * (1 - pow(m, 7)) / (1 - m)) / (1 - m), 7},
                 {0, 2, (1 - pow(1 - pull, 6)) / pull, 6},
                 {m, 0, 1, 1}};
    config.steps_given = true;
    config.lr = lr;
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct leaf leaf;
        config.local_steps = cases[i].steps;
        config.momentum = cases[i].momentum;
        config.mu = cases[i].mu;
        leaf_open(&leaf, "softmax", &config, 0, 1);
        float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
        struct tiered_train_result result = leaf_train(&leaf, w, out);
        assert_true(fabs(result.a_norm - cases[i].want) < 1e-12 * cases[i].want);
        free(w);
        free(out);
        leaf_close(&leaf);
    }
}

static void test_nothing_to_evaluate_on(void **state)
{
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 50));
    struct leaf leaf;
    config.test_fraction = 0;
    leaf_open(&leaf, "softmax", &config, 0, 1);
    float *w = leaf_initial(&leaf);
    struct tiered_train_result result = leaf_evaluate(&leaf, w);
    assert_int_equal(result.num_examples, 0);
    assert_int_equal(result.metrics.n, 0);
    free(w);
    leaf_close(&leaf);
}

static void test_cancelled(void **state)
{
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 50));
    struct tiered_error err = {0};
    struct tiered_train_result result = {.size = sizeof(result)};
    struct leaf leaf;
    leaf_open(&leaf, "softmax", &config, 0, 1);
    float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
    leaf.host.cancel = true;
    assert_int_equal(
        leaf.ops->train(leaf.state, &leaf.host.host, w, out, &result, &err), -1);
    assert_int_equal(err.code, TIERED_ECANCELED);
    assert_true(out[0] == 0 && result.num_examples == 0); /* no effect */
    err.code = TIERED_OK;
    assert_int_equal(leaf.ops->evaluate(leaf.state, &leaf.host.host, w, &result, &err),
                     -1);
    assert_int_equal(err.code, TIERED_ECANCELED);
    free(w);
    free(out);
    leaf_close(&leaf);
}

/* Weights that are not finite are the host's to refuse: they come out as they are. */
static void test_not_finite_goes_through(void **state)
{
    const int64_t hidden = 4;
    struct tiered_trainer_config config = fixture_config(put_toy(*state, 50));
    struct leaf leaf;
    config.hidden = (struct tiered_integers){1, &hidden};
    leaf_open(&leaf, "mlp", &config, 0, 1);
    float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
    w[0] = NAN;
    struct tiered_train_result result = leaf_train(&leaf, w, out);
    assert_true(isnan(metric(&result, "train_loss")));
    assert_true(isnan(out[0]));
    free(w);
    free(out);
    leaf_close(&leaf);
}

static void test_bad_options(void **state)
{
    const struct tiered_trainer_ops *ops = fixture_plugin("mlp")->ops;
    static const char *const shards[] = {
        "",     "3",   "3/",    "/3",  "3/3",  "-1/3",  "1/3 ",
        "1/+3", "a/b", "1/3/4", "0/0", " 0/1", "0x0/1", "9999999999/99999999999"};
    struct tiered_place place = {sizeof(place), "leaf", 0, 1, 0};
    int64_t hidden[17] = {0};
    char want[160];
    struct tiered_error err;
    void *trainer;
    (void)state;
    for (size_t i = 0; i < TIERED_COUNT(shards); i++) {
        struct tiered_trainer_config config = fixture_config("x");
        config.shard = shards[i];
        assert_int_equal(ops->init(NULL, &config, &place, &trainer, &err), -1);
        snprintf(want, sizeof(want),
                 "shard '%s' is not I/N with 0 <= I < N, as 3/12 is", shards[i]);
        assert_string_equal(err.text, want);
    }
    struct tiered_trainer_config config = fixture_config("x");
    config.hidden = (struct tiered_integers){17, hidden};
    assert_int_equal(ops->init(NULL, &config, &place, &trainer, &err), -1);
    assert_string_equal(err.text, "hidden has 17 layers; 16 is the most");
    config.hidden.n = 0;
    config.epochs_given = config.steps_given = true;
    assert_int_equal(ops->init(NULL, &config, &place, &trainer, &err), -1);
    assert_string_equal(err.text,
                        "local_epochs and local_steps are both given; keep one");
    config.epochs_given = false;
    place.index = 1;
    config.shard = "{index}/{count}";
    assert_int_equal(ops->init(NULL, &config, &place, &trainer, &err), -1);
    assert_string_equal(err.text, "leaf 1 of 1 leaves");
    config.shard = "2/3";
    assert_int_equal(ops->init(NULL, &config, &place, &trainer, &err), 0);
    ops->destroy(trainer);
}

static void test_fashion_mnist(void **state)
{
    const int64_t hidden = 128;
    struct stat info;
    (void)state;
    if (stat(FASHION_MNIST, &info) < 0) {
        print_message("skipped: " FASHION_MNIST
                      " is missing; apt-get install dataset-fashion-mnist\n");
        skip();
    }
    struct tiered_trainer_config config = fixture_config("fashion-mnist");
    struct leaf leaf;
    config.hidden = (struct tiered_integers){1, &hidden};
    leaf_open(&leaf, "mlp", &config, 0, 1);
    float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
    assert_int_equal(leaf_train(&leaf, w, out).num_examples, 60000);
    struct tiered_train_result result = leaf_evaluate(&leaf, out);
    assert_int_equal(result.num_examples, 10000);
    assert_true(metric(&result, "accuracy") > 0.80);
    free(w);
    free(out);
    leaf_close(&leaf);
}

int main(void)
{
#define IN_FOLDER(test)                                                                \
    cmocka_unit_test_setup_teardown(test, folder_create, folder_remove)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describe_themselves),
        cmocka_unit_test(test_options_fill),
        IN_FOLDER(test_manifest),
        IN_FOLDER(test_manifest_without_load),
        IN_FOLDER(test_initial_follows_the_seed),
        IN_FOLDER(test_gradients),
        IN_FOLDER(test_momentum_and_proximal_term),
        IN_FOLDER(test_replay_gives_the_same_bits),
        IN_FOLDER(test_learns),
        IN_FOLDER(test_parts_make_the_whole),
        IN_FOLDER(test_counts_what_was_drawn),
        IN_FOLDER(test_tells_its_length),
        IN_FOLDER(test_nothing_to_evaluate_on),
        IN_FOLDER(test_cancelled),
        IN_FOLDER(test_not_finite_goes_through),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_fashion_mnist),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
