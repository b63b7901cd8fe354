/* SPDX-License-Identifier: Apache-2.0 */
/* The root node's caller: gives it the initial model and the order to run, takes note
   of its delivery, fetches the models that it publishes. Also the agents' own sessions.
 */
#include <unistd.h>

#include "core/base/log.h"
#include "core/model/safetensors.h"
#include "core/pipe/pipe.h"
#include "orchestrator/run.h"

static const struct tiered_path root_turn; /* depth 0: above all rounds */

static void order_run(struct run *run)
{
    if (run->stage == RUN_STOPPING) {
        return; /* interrupted while the initial model was on its way */
    }
    run->stage = RUN_RUNNING;
    tiered_downlink_order(run->downlink, run->root_child,
                          TIERED__V1__ORDER__KIND__TRAIN, &root_turn,
                          &run->initial->digest);
}

static int make_memory(void *user, Tiered__V1__Head *head, struct tiered_encoded **ret,
                       struct tiered_error *err)
{
    struct run *run = user;
    head->content.data = run->initial->digest.bytes;
    head->content.len = sizeof(run->initial->digest.bytes);
    int result = tiered_encoded_begin(head, NULL, ret, err);
    head->content = (ProtobufCBinaryData){0};
    return result;
}

/* The root pulls the initial model from here, without filters. */
static int encode_initial(struct run *run, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_pipe_destroyp) struct tiered_pipe *pipe = NULL;
    const struct tiered_encode_job job = {.data = run->initial->data,
                                          .screen = true,
                                          .hosting = run->hosting,
                                          .make = make_memory,
                                          .user = run};
    if (tiered_pipe_create(NULL, 0, run->initial->layout, run->hosting, &pipe, err) <
            0 ||
        tiered_pipe_encode(pipe, &job, &run->initial_encoded, err) < 0) {
        return -1;
    }
    return tiered_encoded_seal(run->initial_encoded, false, err);
}

/* `model` is taken over. */
static void take_initial(struct run *run, struct tiered_model *model)
{
    struct tiered_error err;
    TIERED_FREE char *path = NULL;
    run->initial = model;
    if (asprintf(&path, "%s/initial.safetensors", run->folder) < 0) {
        path = NULL;
        run_fail(run, "out of memory");
        return;
    }
    if (tiered_safetensors_write(path, model, NULL, &err) < 0 ||
        encode_initial(run, &err) < 0) {
        run_fail(run, "initial model: %s", err.text);
        return;
    }
    order_run(run);
}

static void read_initial(struct run *run, const char *path)
{
    struct tiered_error err;
    struct tiered_model *model;
    if (tiered_safetensors_read(path, &model, NULL, &err) < 0) {
        run_fail(run, "%s", err.text);
        return;
    }
    take_initial(run, model);
}

static void root_is_ready(struct run *run)
{
    const char *path = tiered_topology_run(run->plan->topology)->model_path;
    switch (run->stage) {
    case RUN_STARTING:
        told_event(run, "run_ready", json_object());
        if (path) {
            read_initial(run, path);
            return;
        }
        run->stage = RUN_INITIAL;
        __attribute__((fallthrough));
    case RUN_INITIAL: /* and again after a reconnect */
        tiered_downlink_order(run->downlink, run->root_child,
                              TIERED__V1__ORDER__KIND__INITIAL, &root_turn, NULL);
        break;
    case RUN_RUNNING: /* its agent was started again */
        order_run(run);
        break;
    case RUN_FINISHING:
    case RUN_STOPPING:
        break;
    }
}

static void on_ready(void *user, uint32_t child, bool ready, const char *missing)
{
    struct run *run = user;
    if (run->agent_of_child[child] != UINT32_MAX) {
        fleet_connected(run, run->agent_of_child[child], ready);
        return;
    }
    run->root_ready = ready;
    if (ready) {
        root_is_ready(run);
    } else {
        tiered_log(TIERED_LOG_DEBUG, "run", NULL, "the root is not ready: %s", missing);
    }
}

/* An agent sends again what we did not answer: on a new session, or because we were
   away. */
static void take_event(struct run *run, uint32_t child, const Tiered__V1__Event *event)
{
    uint32_t index = run->agent_of_child[child];
    uint64_t *seen = index == UINT32_MAX ? NULL : &run->agents[index].last_event;
    bool again = seen && event->serial >> 32 == *seen >> 32 && event->serial <= *seen;
    json_t *json = event->serial && again ? NULL : json_loads(event->json, 0, NULL);
    if (json_is_object(json)) {
        told_take(run, json);
    }
    json_decref(json);
    if (!seen || !event->serial) {
        return;
    }
    *seen = again ? *seen : event->serial;
    Tiered__V1__Event answer = TIERED__V1__EVENT__INIT;
    answer.serial = *seen;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_EVENT;
    frame.event = &answer;
    tiered_downlink_send(run->downlink, child, NULL, &frame, NULL);
}

static void on_frame(void *user, uint32_t child, const struct tiered_frame *frame)
{
    struct run *run = user;
    if (frame->pb->body_case == TIERED__V1__FRAME__BODY_EVENT) {
        take_event(run, child, frame->pb->event);
    } else if (frame->pb->body_case == TIERED__V1__FRAME__BODY_FAILED) {
        run_fail(run, "node '%s': %s", tiered_downlink_child(run->downlink, child),
                 frame->pb->failed->reason);
    }
}

static void on_heartbeat(void *user, uint32_t child, const struct tiered_frame *frame)
{
    struct run *run = user;
    if (run->agent_of_child[child] != UINT32_MAX) {
        report_states(run->report, frame->pb->heartbeat);
        view_heartbeat(&run->view, frame->pb->heartbeat);
    }
}

/* The head names the last model: the event that told of it may be lost. */
static void take_delivery(struct run *run, const Tiered__V1__Head *head)
{
    struct tiered_digest last;
    run->stage = RUN_FINISHING;
    if (tiered_wire_digest(&head->content, &last, NULL) == 0 &&
        !tiered_digest_is_none(&last)) {
        caller_published(run, &last);
    }
    run_finished_check(run);
}

/* The root offers the initial model (no base), or its delivery, of which only the news
   matters: the model itself is fetched. */
static void on_offer(void *user, uint32_t child, struct tiered_push *push,
                     const struct tiered_frame *frame, const Tiered__V1__Head *head)
{
    struct run *run = user;
    (void)frame;
    if (child != run->root_child) {
        tiered_push_done(push, false, TIERED_EPEER, "only the root delivers here");
    } else if (head->base_model.len == 0 && run->stage == RUN_INITIAL) {
        tiered_push_receive(push);
    } else {
        tiered_push_settled(push);
        if (run->stage == RUN_RUNNING && head->base_model.len > 0) {
            take_delivery(run, head);
        }
    }
}

static int on_store(void *user, const Tiered__V1__Head *head,
                    struct tiered_encoded **ret, struct tiered_error *err)
{
    struct run *run = user;
    TIERED_FREE char *path = NULL;
    if (asprintf(&path, "%s/initial.tmp", run->folder) < 0) {
        path = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return tiered_encoded_create(head, path, ret, err);
}

static void on_discard(void *user, struct tiered_encoded *encoded)
{
    (void)user;
    tiered_encoded_unref(encoded);
}

static void on_broken(void *user, const struct tiered_error *err)
{
    run_fail(user, "%s", err->text);
}

static void on_received(void *user, uint32_t child, struct tiered_push *push,
                        struct tiered_encoded *encoded)
{
    struct run *run = user;
    (void)child;
    struct tiered_error err;
    struct tiered_model *model = NULL;
    if (tiered_decode_model(NULL, 0, run->hosting, NULL, encoded, run->pool, &model,
                            &err) < 0) {
        tiered_push_done(push, false, err.code, err.text);
        run_fail(run, "initial model: %s", err.text);
    } else {
        tiered_push_done(push, true, TIERED_OK, "");
        take_initial(run, model);
    }
}

static int on_model(void *user, const struct tiered_wanted *wanted,
                    struct tiered_encoded **ret)
{
    struct run *run = user;
    if (!run->initial || !run->initial_encoded ||
        !tiered_digest_equal(&wanted->model, &run->initial->digest)) {
        return -1;
    }
    *ret = tiered_encoded_ref(run->initial_encoded);
    return 1;
}

const struct tiered_downlink_owner caller_owner = {
    .ready = on_ready,
    .frame = on_frame,
    .heartbeat = on_heartbeat,
    .offer = on_offer,
    .store = on_store,
    .discard = on_discard,
    .broken = on_broken,
    .received = on_received,
    .model = on_model,
};

/* ---- fetching what the root publishes ---- */

static void fetch(struct run *run);

/* The record's model is the root's own, whatever its children get. */
static bool root_is_lossy(const struct run *run)
{
    bool lossy = false;
    for (size_t i = 0; i < run->n_root_down; i++) {
        lossy = lossy || (run->root_down[i].loaded->plugin.traits & TIERED_LOSSY);
    }
    return lossy;
}

/* Takes the reference. */
static int save_model(struct run *run, struct tiered_encoded *encoded,
                      struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = NULL;
    if (tiered_decode_model(run->root_down, root_is_lossy(run) ? 0 : run->n_root_down,
                            run->hosting, NULL, encoded, run->pool, &model, err) < 0) {
        return -1;
    }
    return tiered_safetensors_write(run->model_path, model, NULL, err);
}

static void on_fetched(void *user, struct tiered_encoded *encoded, const char *reason)
{
    struct run *run = user;
    struct tiered_error err;
    tiered_pull_stop(TIERED_STEAL(run->pull));
    if (!encoded) {
        /* published models make room for newer ones; the newest is always there */
        tiered_log(TIERED_LOG_DEBUG, "run", NULL, "a model was not served: %s", reason);
        run->fetched = (struct tiered_digest){0};
    } else if (save_model(run, encoded, &err) < 0) {
        run_fail(run, "model of a round: %s", err.text);
    } else {
        run->fetched = run->pulling;
    }
    if (run->stage == RUN_STOPPING) {
        return;
    }
    fetch(run);
    run_finished_check(run);
}

static void fetch(struct run *run)
{
    if (run->pull || tiered_digest_is_none(&run->newest) ||
        tiered_digest_equal(&run->newest, &run->fetched)) {
        return;
    }
    run->pulling = run->newest;
    const struct tiered_pull_config config = {
        .loop = run->loop,
        .net = run->root_net ? run->root_net : run->net,
        .address = run->root_address,
        .folder = run->folder,
        .token = run->token,
        .context = {.run = run->id, .node = "", .generation = run->plan->generation},
        .model = run->newest,
        .plain = root_is_lossy(run),
        .broken = on_broken,
    };
    struct tiered_error err;
    if (tiered_pull_start(&config, on_fetched, run, &run->pull, &err) < 0) {
        run_fail(run, "%s", err.text);
    }
}

void caller_published(struct run *run, const struct tiered_digest *digest)
{
    run->newest = *digest;
    fetch(run);
}

static int root_pipe(struct run *run, struct tiered_error *err)
{
    const struct tiered_node *root = &run->plan->nodes[0];
    const struct tiered_plugin_list *down =
        &run->plan->nodes[root->first_child].settings->downlink;
    run->root_down = calloc(down->n ? down->n : 1, sizeof(*run->root_down));
    if (!run->root_down) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < down->n; i++) {
        run->root_down[i].loaded = down->items[i].loaded;
        run->root_down[i].options_json =
            tiered_plan_options(run->plan, root->first_child, &down->items[i], err);
        if (!run->root_down[i].options_json) {
            return -1;
        }
        run->n_root_down = i + 1;
    }
    return 0;
}

/* We fetch models the way that the root's children do. */
static int root_way(struct run *run, struct tiered_error *err)
{
    const struct tiered_node *root = &run->plan->nodes[0];
    const struct tiered_settings *child = run->plan->nodes[root->first_child].settings;
    const struct assign_context context = fleet_context(run);
    Tiered__V1__PluginUse *use;
    if (assign_way(&context, 0, run->root_address, &use, err) < 0) {
        return -1;
    }
    if (!use) {
        return 0;
    }
    run->root_credentials = (struct tiered_credentials){
        .size = sizeof(run->root_credentials), .insecure = child->insecure};
    int result = tiered_config_from_json(&child->transport.loaded->plugin, use->options,
                                         &run->root_config, err);
    if (result == 0) {
        result =
            tiered_net_create(child->transport.loaded, run->root_config.data, run->loop,
                              &run->root_credentials, &run->root_net, err);
    }
    tiered__v1__plugin_use__free_unpacked(use, NULL);
    return result;
}

int caller_create(struct run *run, struct tiered_error *err)
{
    run->hosting = calloc(1, sizeof(*run->hosting));
    if (!run->hosting ||
        asprintf(&run->model_path, "%s/model.safetensors", run->folder) < 0) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    tiered_hosting_init(run->hosting, tiered_topology_run(run->plan->topology)->seed,
                        "run", "", "", "");
    return root_way(run, err) < 0 ? -1 : root_pipe(run, err);
}

int caller_resume(struct run *run, struct tiered_error *err)
{
    TIERED_FREE char *path = NULL;
    if (asprintf(&path, "%s/initial.safetensors", run->folder) < 0) {
        path = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (access(path, F_OK) < 0) {
        return 0; /* it had not got so far */
    }
    if (tiered_safetensors_read(path, &run->initial, NULL, err) < 0 ||
        encode_initial(run, err) < 0) {
        return -1;
    }
    run->stage = RUN_RUNNING;
    return 0;
}

void caller_destroy(struct run *run)
{
    tiered_pull_stop(run->pull);
    tiered_net_destroy(run->root_net);
    tiered_config_finish(&run->root_config);
    for (size_t i = 0; i < run->n_root_down; i++) {
        free((char *)run->root_down[i].options_json);
    }
    free(run->root_down);
    free(run->hosting);
    free(run->model_path);
    tiered_model_unref(run->initial);
    tiered_encoded_unref(run->initial_encoded);
}
