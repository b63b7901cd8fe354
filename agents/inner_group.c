/* SPDX-License-Identifier: Apache-2.0 */
/* The aggregator's side of a group: messages, and who is in. */
#include "agents/inner_group.h"

#include "agents/group_inside.h"

#include "core/base/log.h"

#define NOBODY UINT32_MAX

static int load_spent(struct inner_group *g, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes text = {0};
    char path[192];
    struct tiered_error why;
    if (tiered_file_read(g->file, sizeof(path) - 1, &text, &why) < 0) {
        return why.code == TIERED_ENOENT ? 0
                                         : tiered_fail(err, why.code, "%s", why.text);
    }
    memcpy(path, text.data, text.size);
    path[text.size] = '\0';
    return tiered_path_parse(path, &g->spent)
               ? 0
               : tiered_fail(err, TIERED_ECORRUPT, "'%s' is damaged", g->file);
}

static int open_group(struct inner_group *g, const struct tiered_use *use,
                      struct tiered_error *err)
{
    struct node *node = g->inner->node;
    size_t n = node->as->n_children;
    g->rank = calloc(n, sizeof(*g->rank));
    g->children = calloc(n, sizeof(*g->children));
    g->names = calloc(n, sizeof(*g->names));
    if (!g->rank || !g->children || !g->names ||
        asprintf(&g->file, "%s/summed-%s", node->folder, node->agent->assignment->run) <
            0) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (load_spent(g, err) < 0 ||
        tiered_config_from_json(g->plugin, use->options_json, &g->config, err) < 0 ||
        g->ops->init(&node->hosting.host, g->config.data, &g->state, err) < 0) {
        g->ops = NULL;
        return tiered_error_prefix(err, "group '%s': ", g->plugin->name);
    }
    return 0;
}

int inner_group_create(struct inner *inner, struct inner_group **ret,
                       struct tiered_error *err)
{
    size_t n = inner->node->as->n_child_uplink;
    const struct tiered_use *use = n ? &inner->child_up[n - 1] : NULL;
    *ret = NULL;
    if (!use || use->loaded->plugin.kind != TIERED_GROUP) {
        return 0;
    }
    struct inner_group *g = calloc(1, sizeof(*g));
    if (!g) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    g->inner = inner;
    g->plugin = &use->loaded->plugin;
    g->ops = g->plugin->ops;
    if (open_group(g, use, err) < 0) {
        inner_group_destroy(g);
        return -1;
    }
    *ret = g;
    return 0;
}

void inner_group_destroy(struct inner_group *g)
{
    if (g) {
        if (g->ops) {
            g->ops->destroy(g->state);
        }
        tiered_config_finish(&g->config);
        tiered_masked_destroy(g->masked);
        free(g->rank);
        free(g->children);
        free(g->names);
        free(g->file);
        free(g);
    }
}

void inner_group_rules(const struct inner_group *g, uint32_t *ret_pre,
                       uint32_t *ret_post)
{
    *ret_pre = g->ops->pre_steps;
    *ret_post = g->ops->post_steps;
}

static void stop(struct inner_group *g)
{
    g->running = g->pre_closed = g->frozen = false;
}

void inner_group_end(struct inner_group *g)
{
    stop(g);
    g->refused = false;
}

/* ---- to the machine ---- */

static void say(struct inner_group *g, enum tiered_round_event_kind kind,
                const char *reason)
{
    struct tiered_round_event event = inner_event(g->inner, kind, 0);
    event.path = g->path;
    event.reason = reason;
    inner_step(g->inner, &event);
}

static void fail(struct inner_group *g, const struct tiered_error *err)
{
    char text[256];
    snprintf(text, sizeof(text), "%s: %.220s", g->plugin->name, err->text);
    stop(g);
    g->refused = true;
    say(g, TIERED_ON_PHASE_FAILED, text);
}

/* ---- an attempt ---- */

/* The sampled are the members, in canonical order. */
static void enrol(struct inner_group *g)
{
    g->n = 0;
    for (uint32_t i = 0; i < g->inner->node->as->n_children; i++) {
        g->rank[i] = NOBODY;
        if (tiered_round_asked(g->inner->machine, i)) {
            g->rank[i] = g->n;
            g->names[g->n] = g->inner->children[i];
            g->children[g->n++] = i;
        }
    }
}

static int begin(struct inner_group *g, struct tiered_error *err)
{
    struct inner *inner = g->inner;
    char text[192];
    tiered_path_text(&g->path, text);
    /* made once: a run's layout stays, and a worker may be reading it */
    if (!g->masked &&
        tiered_masked_create(inner->current->layout, g->ops->word_bytes(g->state),
                             inner->norm > 0 ? 1 : 0, &g->masked, err) < 0) {
        return -1;
    }
    if (tiered_layout_match(g->masked->plain, inner->current->layout, err) < 0) {
        return -1;
    }
    enrol(g);
    tiered_hosting_init(&g->hosting, inner->node->hosting.run_seed, g->plugin->name,
                        inner->node->as->tier, inner->node->as->node, text);
    const struct tiered_group_round round = {.size = sizeof(round),
                                             .host = &g->hosting.host,
                                             .n_members = g->n,
                                             .names = g->names,
                                             .n_values = g->masked->n_values,
                                             .least =
                                                 inner->node->as->child_group_least};
    return g->ops->aggregator_begin(g->state, &round, err);
}

/* The first message of a round. False: there will be none. */
static bool enter(struct inner_group *g, const struct tiered_path *path,
                  uint64_t attempt)
{
    struct tiered_error err;
    if (g->running && g->attempt == attempt) {
        return true;
    }
    if (g->refused && g->attempt == attempt) {
        return false; /* told already, in this very step */
    }
    stop(g);
    g->path = *path;
    g->attempt = attempt;
    g->refused = tiered_path_equal(&g->spent, path);
    if (g->refused) {
        inner_log(g->inner, TIERED_LOG_WARN,
                  "shares of this round were revealed before this node was started "
                  "again: it cannot be repeated");
        say(g, TIERED_ON_NOT_AGGREGATED, NULL);
        return false;
    }
    if (begin(g, &err) < 0) {
        fail(g, &err);
        return false;
    }
    g->running = true;
    return true;
}

/* Survivors are frozen, and the round cannot be repeated: written down before anybody
   is asked for a share. */
static int freeze(struct inner_group *g, struct tiered_error *err)
{
    uint32_t n = 0;
    char text[192];
    TIERED_FREE uint32_t *members = calloc(g->n + 1u, sizeof(*members));
    if (!members) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < g->n; i++) {
        if (tiered_round_stored(g->inner->machine, g->children[i])) {
            members[n++] = i;
        }
    }
    tiered_path_text(&g->path, text);
    if (g->ops->aggregator_survivors(g->state, members, n, err) < 0 ||
        tiered_file_write(g->file, text, strlen(text), err) < 0) {
        return -1;
    }
    g->spent = g->path;
    g->frozen = true;
    snprintf(text, sizeof(text), "survivors are named: %u of %u members", n, g->n);
    inner_log(g->inner, TIERED_LOG_DEBUG, text);
    return 0;
}

static void send(struct inner_group *g, const struct tiered_round_action *a,
                 const uint8_t *data, size_t size)
{
    Tiered__V1__Phase phase = TIERED__V1__PHASE__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    phase.phase = a->phase;
    phase.step = a->step;
    frame.body_case = TIERED__V1__FRAME__BODY_PHASE;
    frame.phase = &phase;
    frame.data = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)data};
    tiered_downlink_send(g->inner->downlink, a->child, &a->path, &frame, NULL);
}

static uint32_t number_of(const struct inner_group *g, uint32_t phase, uint32_t step)
{
    return phase == 1 ? step : g->ops->pre_steps + step;
}

void inner_group_ask(struct inner_group *g, const struct tiered_round_action *a)
{
    struct tiered_error err;
    size_t size = 0;
    bool first = a->phase == 1 && a->step == 1;
    if (first && !enter(g, &a->path, a->update)) {
        return;
    }
    if (!g->running || g->attempt != a->update) {
        return; /* the attempt failed in this very step */
    }
    if (a->phase == 2 && !g->frozen && freeze(g, &err) < 0) {
        fail(g, &err);
        return;
    }
    TIERED_FREE uint8_t *data = malloc(TIERED_GROUP_MESSAGE_MAX);
    if (!data) {
        abort();
    }
    if (g->ops->aggregator_step(g->state, number_of(g, a->phase, a->step),
                                g->rank[a->child], data, TIERED_GROUP_MESSAGE_MAX,
                                &size, &err) < 0) {
        fail(g, &err);
        return;
    }
    send(g, a, data, size);
}

/* The last step of all is closed with the sum, on a worker. */
void inner_group_closed(struct inner_group *g, const struct tiered_round_action *a)
{
    struct tiered_error err;
    uint32_t step = number_of(g, a->phase, a->step);
    if (!g->running || step == g->ops->pre_steps + g->ops->post_steps) {
        return;
    }
    if (g->ops->aggregator_close(g->state, step, &err) < 0) {
        fail(g, &err);
    } else if (step == g->ops->pre_steps) {
        g->pre_closed = true;
        inner_log(g->inner, TIERED_LOG_DEBUG, "the members have keys, and train");
    }
}

void inner_group_frame(struct inner_group *g, uint32_t child,
                       const struct tiered_path *path, const struct tiered_frame *frame)
{
    const Tiered__V1__Phase *phase = frame->pb->phase;
    struct tiered_error err;
    struct tiered_round_event event = inner_event(g->inner, TIERED_ON_PHASE, child);
    bool open = g->running && tiered_path_equal(path, &g->path) &&
                (phase->phase == 1 || phase->phase == 2) &&
                phase->step <= g->ops->pre_steps + g->ops->post_steps;
    if (!open || g->rank[child] == NOBODY ||
        strcmp(tiered_round_state(g->inner->machine), "aggregating") == 0) {
        return; /* of a round that is over, or that never was */
    }
    event.path = *path;
    event.phase = phase->phase;
    event.step = phase->step;
    if (phase->lost) {
        event.kind = TIERED_ON_PHASE_LOST;
        event.reason = phase->reason[0] ? phase->reason : NULL;
    } else if (phase->reason[0]) {
        event.kind = TIERED_ON_PHASE_BAD;
        event.reason = phase->reason;
    } else if (g->ops->aggregator_receive(
                   g->state, number_of(g, phase->phase, phase->step), g->rank[child],
                   frame->body_data, frame->body_size, &err) < 0) {
        event.kind = TIERED_ON_PHASE_BAD;
        event.reason = err.text;
    }
    inner_step(g->inner, &event);
}

/* ---- updates ---- */

int inner_group_offer(const struct inner_group *g, uint32_t child,
                      const struct tiered_path *path, const Tiered__V1__Head *head,
                      bool *ret_waited, struct tiered_error *err)
{
    /* once it is aggregated, a worker has the state */
    bool open = strcmp(tiered_round_state(g->inner->machine), "aggregating") != 0 &&
                g->running && g->pre_closed && tiered_path_equal(path, &g->path);
    *ret_waited = open;
    if (!open || g->rank[child] == NOBODY) {
        return tiered_fail(err, TIERED_ESTATE,
                           "a masked update of a round that is not collecting");
    }
    if (head->n_pipe != 1 || strcmp(head->pipe[0]->name, g->plugin->name) != 0 ||
        head->pipe[0]->header.len != TIERED_GROUP_OPEN) {
        return tiered_fail(err, TIERED_EPEER, "an update that is not masked by %s",
                           g->plugin->name);
    }
    return g->ops->aggregator_check(g->state, g->rank[child],
                                    head->pipe[0]->header.data, err);
}

int inner_group_check(const struct inner_group *g, const struct tiered_encoded *encoded,
                      struct tiered_error *err)
{
    return tiered_masked_check(g->masked, encoded, err);
}
