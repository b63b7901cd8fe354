/* SPDX-License-Identifier: Apache-2.0 */
/* A member of a group: messages, masks, and what it must not forget. */
#include "agents/member.h"

#include <math.h>

#include "core/base/log.h"
#include "core/pipe/masked.h"
#include "tiered/group.h"

#define STRETCH 4096u /* values masked at a time */

struct member {
    struct node *node;
    const struct tiered_plugin *plugin;
    const struct tiered_group_ops *ops;
    struct tiered_config config;
    bool uniform;
    char *file;               /* names the round whose shares were revealed */
    struct tiered_path spent; /* … which is this one */
    pthread_mutex_t lock;     /* guards what follows */
    void *state;
    struct tiered_hosting hosting; /* of the open attempt's round */
    struct tiered_path path;       /* … depth 0: none */
    struct tiered_digest first;    /* of the attempt's first message */
    uint64_t attempt;              /* counts them */
};

/* ---- life ---- */

static int load_spent(struct member *m, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes text = {0};
    char path[192];
    struct tiered_error none;
    if (tiered_file_read(m->file, sizeof(path) - 1, &text, &none) < 0) {
        return none.code == TIERED_ENOENT
                   ? 0
                   : tiered_fail(err, none.code, "%s", none.text);
    }
    memcpy(path, text.data, text.size);
    path[text.size] = '\0';
    return tiered_path_parse(path, &m->spent)
               ? 0
               : tiered_fail(err, TIERED_ECORRUPT, "'%s' is damaged", m->file);
}

static int open_member(struct member *m, const struct tiered_use *use,
                       struct tiered_error *err)
{
    struct node *node = m->node;
    if (asprintf(&m->file, "%s/revealed-%s", node->folder,
                 node->agent->assignment->run) < 0) {
        m->file = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (load_spent(m, err) < 0 ||
        tiered_config_from_json(m->plugin, use->options_json, &m->config, err) < 0 ||
        m->ops->init(&node->hosting.host, m->config.data, &m->state, err) < 0) {
        m->ops = NULL;
        return tiered_error_prefix(err, "group '%s': ", m->plugin->name);
    }
    return 0;
}

int member_create(struct node *node, const struct tiered_use *use, bool uniform,
                  struct member **ret, struct tiered_error *err)
{
    struct member *m = calloc(1, sizeof(*m));
    if (!m) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    m->node = node;
    m->plugin = &use->loaded->plugin;
    m->ops = m->plugin->ops;
    m->uniform = uniform;
    pthread_mutex_init(&m->lock, NULL);
    if (open_member(m, use, err) < 0) {
        member_destroy(m);
        return -1;
    }
    *ret = m;
    return 0;
}

void member_destroy(struct member *m)
{
    if (m) {
        if (m->ops) {
            m->ops->destroy(m->state);
        }
        tiered_config_finish(&m->config);
        pthread_mutex_destroy(&m->lock);
        free(m->file);
        free(m);
    }
}

/* ---- messages ---- */

/* Which survivors each share was told for: of one round these are always the same. */
static void log_told(const struct member *m, const char *path,
                     const struct tiered_frame *frame)
{
    const struct tiered_log_context where = {
        .tier = m->node->as->tier, .node = m->node->as->node, .path = path};
    struct tiered_digest survivors;
    char hex[65];
    tiered_digest_of(frame->body_data, frame->body_size, &survivors);
    tiered_digest_hex(&survivors, hex);
    tiered_log(TIERED_LOG_DEBUG, "group", &where,
               "shares are told for the survivors %.16s", hex);
}

/* Its shares are about to leave: never join this round again. */
static int remember(struct member *m, const struct tiered_path *path,
                    const struct tiered_frame *frame, struct tiered_error *err)
{
    char text[192];
    tiered_path_text(path, text);
    log_told(m, text, frame);
    if (tiered_path_equal(&m->spent, path)) {
        return 0;
    }
    if (tiered_file_write(m->file, text, strlen(text), err) < 0) {
        return -1;
    }
    m->spent = *path;
    return 0;
}

/* Rounds only go forward: an older one than that which was revealed is over too. */
static bool is_spent(const struct member *m, const struct tiered_path *path)
{
    return m->spent.depth > 0 && tiered_path_compare(path, &m->spent) <= 0;
}

/* The round of the message is the open attempt's; a first message may open one. */
static int enter(struct member *m, const struct tiered_path *path, uint32_t step,
                 bool *ret_lost, struct tiered_error *err)
{
    char text[192];
    tiered_path_text(path, text);
    if (tiered_path_equal(&m->path, path)) {
        return 0;
    }
    *ret_lost = step != 1;
    if (*ret_lost) {
        return tiered_fail(err, TIERED_ESTATE,
                           "this node has no keys of round %.64s: it was started again",
                           text);
    }
    tiered_hosting_init(&m->hosting, m->node->hosting.run_seed, m->plugin->name,
                        m->node->as->tier, m->node->as->node, text);
    const struct tiered_group_round round = {.size = sizeof(round),
                                             .host = &m->hosting.host,
                                             .spent = is_spent(m, path),
                                             .least = m->node->as->group_least};
    if (m->ops->member_begin(m->state, &round, err) < 0) {
        m->path = (struct tiered_path){0};
        return -1;
    }
    m->path = *path;
    m->first = (struct tiered_digest){{0}};
    return 0;
}

static int step_of(const struct member *m, const Tiered__V1__Phase *phase,
                   uint32_t *ret, struct tiered_error *err)
{
    bool pre = phase->phase == 1;
    uint32_t most = pre ? m->ops->pre_steps : m->ops->post_steps;
    if ((!pre && phase->phase != 2) || phase->step == 0 || phase->step > most) {
        return tiered_fail(err, TIERED_EPEER, "there is no step %u of phase %u",
                           phase->step, phase->phase);
    }
    *ret = pre ? phase->step : m->ops->pre_steps + phase->step;
    return 0;
}

/* Under the lock. */
static int answer(struct member *m, const struct tiered_path *path,
                  const struct tiered_frame *frame, uint8_t *out, size_t *ret_size,
                  bool *ret_fresh, bool *ret_lost, struct tiered_error *err)
{
    uint32_t step = 0;
    if (step_of(m, frame->pb->phase, &step, err) < 0 ||
        enter(m, path, step, ret_lost, err) < 0) {
        return -1;
    }
    if (m->ops->member_step(m->state, step, frame->body_data, frame->body_size, out,
                            TIERED_GROUP_MESSAGE_MAX, ret_size, err) < 0) {
        return tiered_error_prefix(err, "%s: ", m->plugin->name);
    }
    if (step == 1) {
        struct tiered_digest digest;
        tiered_digest_of(frame->body_data, frame->body_size, &digest);
        *ret_fresh = !tiered_digest_equal(&digest, &m->first);
        m->first = digest;
        m->attempt += *ret_fresh;
    }
    return 0;
}

static void send_answer(struct member *m, const struct tiered_path *path,
                        const Tiered__V1__Phase *asked, const uint8_t *data,
                        size_t size, bool lost, const struct tiered_error *err)
{
    Tiered__V1__Phase phase = TIERED__V1__PHASE__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    char reason[TIERED_LINK_TEXT + 1];
    phase.phase = asked->phase;
    phase.step = asked->step;
    phase.lost = lost;
    if (err) {
        const struct tiered_log_context where = {.tier = m->node->as->tier,
                                                 .node = m->node->as->node};
        tiered_log(TIERED_LOG_WARN, "group", &where, "%s", err->text);
        tiered_link_text(err->text, reason);
        phase.reason = reason;
    } else {
        frame.data = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)data};
    }
    frame.body_case = TIERED__V1__FRAME__BODY_PHASE;
    frame.phase = &phase;
    tiered_uplink_send(m->node->uplink, path, &frame, NULL); /* asked again if lost */
}

void member_answer(struct member *m, const struct tiered_path *path,
                   const struct tiered_frame *frame, bool *ret_fresh)
{
    const Tiered__V1__Phase *phase = frame->pb->phase;
    struct tiered_error err;
    size_t size = 0;
    TIERED_FREE uint8_t *out = malloc(TIERED_GROUP_MESSAGE_MAX);
    if (!out) {
        abort();
    }
    *ret_fresh = false;
    pthread_mutex_lock(&m->lock);
    bool lost = false;
    int result = answer(m, path, frame, out, &size, ret_fresh, &lost, &err);
    pthread_mutex_unlock(&m->lock);
    if (result == 0 && phase->phase == 2) {
        result = remember(m, path, frame, &err);
    }
    send_answer(m, path, phase, out, size, lost, result < 0 ? &err : NULL);
}

uint64_t member_attempt(struct member *m)
{
    pthread_mutex_lock(&m->lock);
    uint64_t attempt = m->attempt;
    pthread_mutex_unlock(&m->lock);
    return attempt;
}

bool member_ready(struct member *m, const struct tiered_path *path)
{
    pthread_mutex_lock(&m->lock);
    bool ready = tiered_path_equal(&m->path, path);
    pthread_mutex_unlock(&m->lock);
    if (!ready) {
        Tiered__V1__Phase asked = TIERED__V1__PHASE__INIT;
        struct tiered_error err;
        asked.phase = 1;
        tiered_fail(&err, TIERED_ESTATE,
                    "this node has no keys of the round: it was started again");
        send_answer(m, path, &asked, NULL, 0, true, &err);
    }
    return ready;
}

/* ---- masks ---- */

static int begin_entry(struct member *m, const struct member_update *u,
                       const struct tiered_masked *masked, uint8_t *open,
                       struct tiered_encoded **ret, struct tiered_error *err)
{
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    Tiered__V1__FilterHead filter = TIERED__V1__FILTER_HEAD__INIT;
    Tiered__V1__FilterHead *pipe[] = {&filter};
    if (tiered_wire_tensors(masked->words, &head.tensors, &head.n_tensors, err) < 0) {
        return -1;
    }
    filter.name = (char *)m->plugin->name;
    filter.header = (ProtobufCBinaryData){.len = TIERED_GROUP_OPEN, .data = open};
    head.pipe = pipe;
    head.n_pipe = 1;
    head.base_model = (ProtobufCBinaryData){.len = sizeof(u->base->bytes),
                                            .data = (uint8_t *)u->base->bytes};
    pthread_mutex_lock(&m->node->outbox_lock);
    int result = tiered_outbox_begin(m->node->outbox, u->path, &head, ret, err);
    pthread_mutex_unlock(&m->node->outbox_lock);
    tiered_wire_free_tensors(head.tensors, head.n_tensors);
    return result;
}

static int append(struct tiered_encoded *e, uint32_t index, const void *data,
                  size_t size, struct tiered_error *err)
{
    return tiered_encoded_append(e, index, tiered_crc32c(0, data, size), data, size,
                                 err);
}

/* Under the lock: keys and masks are still those of the attempt. */
static int same_attempt(const struct member *m, const struct member_update *u,
                        struct tiered_error *err)
{
    return m->attempt == u->attempt && tiered_path_equal(&m->path, u->path)
               ? 0
               : tiered_fail(err, TIERED_ESTATE,
                             "this update is of an attempt at its round that was given "
                             "up");
}

/* One block of words. */
static int mask_block(struct member *m, const struct member_update *u,
                      const struct tiered_summand *summand,
                      const struct tiered_masked *masked, uint32_t index,
                      uint8_t *words, uint64_t *clipped, struct tiered_error *err)
{
    double values[STRETCH];
    uint64_t first = masked->words_first[index];
    uint64_t n = masked->words->blocks[index].n_elements;
    for (uint64_t at = 0; at < n;) {
        size_t part =
            n - at < TIERED_COUNT(values) ? (size_t)(n - at) : TIERED_COUNT(values);
        tiered_masked_values(masked, summand, first + at, part, values);
        pthread_mutex_lock(&m->lock);
        int result = same_attempt(m, u, err) < 0
                         ? -1
                         : m->ops->mask(m->state, first + at, part, values,
                                        words + at * masked->word_bytes, clipped, err);
        pthread_mutex_unlock(&m->lock);
        if (result < 0) {
            return -1;
        }
        at += part;
    }
    return 0;
}

static int open_update(struct member *m, const struct member_update *u,
                       uint64_t n_values, uint8_t *open, uint8_t *tail,
                       struct tiered_error *err)
{
    const struct tiered_group_weight weight = {m->uniform ? 1 : u->num_examples,
                                               u->num_examples};
    pthread_mutex_lock(&m->lock);
    int result = same_attempt(m, u, err) < 0
                     ? -1
                     : m->ops->open(m->state, &weight, n_values, open, tail, err);
    pthread_mutex_unlock(&m->lock);
    return result;
}

static void warn_clipped(const struct member *m, uint64_t clipped, uint64_t n)
{
    const struct tiered_log_context where = {.tier = m->node->as->tier,
                                             .node = m->node->as->node};
    tiered_log(TIERED_LOG_WARN, "group", &where,
               "%s clipped %llu of %llu values to its range; a larger clip_range would "
               "keep them",
               m->plugin->name, (unsigned long long)clipped, (unsigned long long)n);
}

static int mask_all(struct member *m, const struct member_update *u,
                    const struct tiered_masked *masked, struct tiered_encoded **ret,
                    struct tiered_error *err)
{
    uint8_t open[TIERED_GROUP_OPEN], tail[TIERED_GROUP_TAIL];
    uint64_t clipped = 0, word_bytes = sizeof(tail);
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    TIERED_FREE uint8_t *words = malloc(TIERED_BLOCK_BYTES);
    const struct tiered_summand summand = {.delta = u->delta->data,
                                           .extras = {u->within}};
    if (!words) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (open_update(m, u, masked->n_values, open, tail, err) < 0 ||
        begin_entry(m, u, masked, open, &e, err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < masked->n_word_blocks; i++) {
        size_t size = (size_t)masked->words->blocks[i].size_bytes;
        word_bytes += size;
        if (mask_block(m, u, &summand, masked, i, words, &clipped, err) < 0 ||
            append(e, i, words, size, err) < 0) {
            return -1;
        }
    }
    if (append(e, masked->n_word_blocks, tail, sizeof(tail), err) < 0) {
        return -1;
    }
    if (clipped > 0) {
        warn_clipped(m, clipped, masked->n_values);
    }
    tiered_encoded_stage_bytes(e, 0, word_bytes);
    *ret = TIERED_STEAL(e);
    return 0;
}

int member_mask(struct member *m, const struct member_update *u,
                struct tiered_encoded **ret, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_masked_destroyp) struct tiered_masked *masked = NULL;
    if (tiered_masked_create(u->delta->layout, m->ops->word_bytes(m->state),
                             isnan(u->within) ? 0 : 1, &masked, err) < 0 ||
        mask_all(m, u, masked, ret, err) < 0) {
        return tiered_error_prefix(err, "%s: ", m->plugin->name);
    }
    return 0;
}
