/* SPDX-License-Identifier: Apache-2.0 */
/* The run's record in SQLite. */
#include "orchestrator/record.h"

#include <math.h>
#include <sqlite3.h>

struct record {
    sqlite3 *db;
};

static const char schema[] =
    "PRAGMA journal_mode = WAL;"
    "PRAGMA synchronous = NORMAL;"
    "PRAGMA busy_timeout = 5000;"
    "CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, name TEXT, seed INTEGER,"
    "  topology TEXT, status TEXT, model TEXT, started TEXT, finished TEXT);"
    "CREATE TABLE IF NOT EXISTS generations (run TEXT, generation INTEGER, since TEXT,"
    "  PRIMARY KEY (run, generation));"
    "CREATE TABLE IF NOT EXISTS rounds (run TEXT, node TEXT, path TEXT, tier TEXT,"
    "  round INTEGER, contributions INTEGER, num_examples INTEGER, metrics TEXT,"
    "  bytes_up INTEGER, bytes_down INTEGER, seconds REAL, model TEXT, time TEXT,"
    "  raw_up INTEGER, filters_up TEXT, PRIMARY KEY (run, node, path));"
    "CREATE TABLE IF NOT EXISTS contributions (run TEXT, parent TEXT, path TEXT,"
    "  node TEXT, num_examples INTEGER, PRIMARY KEY (run, parent, path, node));"
    "CREATE TABLE IF NOT EXISTS privacy (run TEXT, node TEXT, noise TEXT, tier TEXT,"
    "  steps INTEGER, epsilon REAL, delta REAL, noise_multiplier REAL, q REAL,"
    "  PRIMARY KEY (run, node, noise));"
    "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, run TEXT, time TEXT,"
    "  event TEXT, json TEXT);";

static int fail(struct record *record, const char *what, struct tiered_error *err)
{
    return tiered_fail(err, TIERED_EIO, "run record: %s: %s", what,
                       sqlite3_errmsg(record->db));
}

int record_open(const char *path, struct record **ret, struct tiered_error *err)
{
    TIERED_CLEANUP(record_closep) struct record *record = calloc(1, sizeof(*record));
    if (!record) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (sqlite3_open(path, &record->db) != SQLITE_OK) {
        return fail(record, path, err);
    }
    if (sqlite3_exec(record->db, schema, NULL, NULL, NULL) != SQLITE_OK) {
        return fail(record, "cannot make the tables", err);
    }
    *ret = TIERED_STEAL(record);
    return 0;
}

void record_close(struct record *record)
{
    if (record) {
        sqlite3_close(record->db);
        free(record);
    }
}

/* Run one statement; `types` says what each value is: s text, i integer, f real. */
static int execute(struct record *record, struct tiered_error *err, const char *sql,
                   const char *types, ...)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(record->db, sql, -1, &statement, NULL) != SQLITE_OK) {
        return fail(record, "cannot prepare", err);
    }
    va_list args;
    va_start(args, types);
    for (int i = 0; types[i]; i++) {
        if (types[i] == 's') {
            sqlite3_bind_text(statement, i + 1, va_arg(args, const char *), -1,
                              SQLITE_TRANSIENT);
        } else if (types[i] == 'i') {
            sqlite3_bind_int64(statement, i + 1, va_arg(args, long long));
        } else {
            sqlite3_bind_double(statement, i + 1, va_arg(args, double));
        }
    }
    va_end(args);
    int result = sqlite3_step(statement) == SQLITE_DONE ? 0 : -1;
    if (result < 0) {
        fail(record, "cannot write", err);
    }
    sqlite3_finalize(statement);
    return result;
}

int record_run(struct record *record, const char *run, const char *name, uint64_t seed,
               uint64_t generation, const char *topology, struct tiered_error *err)
{
    if (execute(record, err,
                "INSERT INTO runs (run, name, seed, topology, status, started)"
                " VALUES (?, ?, ?, ?, 'running', datetime('now'))",
                "ssis", run, name, (long long)seed, topology) < 0) {
        return -1;
    }
    return execute(record, err,
                   "INSERT INTO generations (run, generation, since)"
                   " VALUES (?, ?, datetime('now'))",
                   "si", run, (long long)generation);
}

static const char *text_of(const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));
    return text ? text : "";
}

static long long number_of(const json_t *event, const char *key)
{
    return json_integer_value(json_object_get(event, key));
}

static int record_round(struct record *record, const char *run, const json_t *event,
                        struct tiered_error *err)
{
    char *metrics = json_dumps(json_object_get(event, "metrics"),
                               JSON_COMPACT | JSON_REAL_PRECISION(15));
    char *filters = json_dumps(json_object_get(event, "filters_up"),
                               JSON_COMPACT | JSON_ENCODE_ANY);
    int result = execute(record, err,
                         "INSERT OR REPLACE INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, "
                         "?, ?, ?, ?, ?, ?, ?,"
                         " ?)",
                         "ssssiiisiifssis", run, text_of(event, "node"),
                         text_of(event, "path"), text_of(event, "tier"),
                         number_of(event, "round"), number_of(event, "contributions"),
                         number_of(event, "num_examples"), metrics ? metrics : "{}",
                         number_of(event, "bytes_up"), number_of(event, "bytes_down"),
                         json_number_value(json_object_get(event, "seconds")),
                         text_of(event, "model"), text_of(event, "time"),
                         number_of(event, "raw_up"), filters ? filters : "[]");
    free(metrics);
    free(filters);
    return result;
}

static int record_contributions(struct record *record, const char *run,
                                const json_t *event, struct tiered_error *err)
{
    size_t i;
    json_t *item;
    json_array_foreach (json_object_get(event, "counted"), i, item) {
        if (execute(record, err,
                    "INSERT OR REPLACE INTO contributions VALUES (?, ?, ?, ?, ?)",
                    "ssssi", run, text_of(event, "node"), text_of(event, "path"),
                    text_of(item, "node"), number_of(item, "num_examples")) < 0) {
            return -1;
        }
    }
    return 0;
}

int record_event(struct record *record, const char *run, const json_t *event,
                 struct tiered_error *err)
{
    const char *name = text_of(event, "event");
    char *text = json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (!text) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    sqlite3_exec(record->db, "BEGIN", NULL, NULL, NULL);
    int result = execute(
        record, err, "INSERT INTO events (run, time, event, json) VALUES (?, ?, ?, ?)",
        "ssss", run, text_of(event, "time"), name, text);
    free(text);
    if (result == 0 && strcmp(name, "round_committed") == 0) {
        result = record_round(record, run, event, err);
    } else if (result == 0 && strcmp(name, "contributions") == 0) {
        result = record_contributions(record, run, event, err);
    }
    sqlite3_exec(record->db, result == 0 ? "COMMIT" : "ROLLBACK", NULL, NULL, NULL);
    return result;
}

/* One row of one query (take may step on to more) on a run folder's record; `take` gets
 * the row. -1: no row. */
static int query(const char *folder, const char *sql,
                 void (*take)(sqlite3_stmt *row, void *user), void *user)
{
    char path[4096];
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    int result = -1;
    snprintf(path, sizeof(path), "%s/run.db", folder);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
        sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        take(statement, user);
        result = 0;
    }
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return result;
}

/* SQLite's infinity is no number that other programs read: NULL stands for none. */
int record_privacy(struct record *record, const char *run,
                   const struct record_privacy *row, struct tiered_error *err)
{
    return execute(record, err,
                   "INSERT OR REPLACE INTO privacy (run, node, noise, tier, steps,"
                   " epsilon, delta, noise_multiplier, q)"
                   " VALUES (?, ?, ?, ?, ?, nullif(?, 9e999), ?, ?, ?)",
                   "ssssiffff", run, row->node, row->noise, row->tier, row->steps,
                   row->epsilon, row->delta, row->noise_multiplier, row->q);
}

static const char *column_text(sqlite3_stmt *row, int i)
{
    const char *text = (const char *)sqlite3_column_text(row, i);
    return text ? text : "";
}

static struct record_privacy privacy_of(sqlite3_stmt *row)
{
    bool none = sqlite3_column_type(row, 4) == SQLITE_NULL;
    return (struct record_privacy){
        .node = column_text(row, 0),
        .noise = column_text(row, 1),
        .tier = column_text(row, 2),
        .steps = sqlite3_column_int64(row, 3),
        .epsilon = none ? INFINITY : sqlite3_column_double(row, 4),
        .delta = sqlite3_column_double(row, 5),
        .noise_multiplier = sqlite3_column_double(row, 6),
        .q = sqlite3_column_double(row, 7),
    };
}

#define PRIVACY_COLUMNS "node, noise, tier, steps, epsilon, delta, noise_multiplier, q"

int record_privacy_rows(struct record *record, const char *run,
                        void (*tell)(void *user, const struct record_privacy *row),
                        void *user, struct tiered_error *err)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(record->db,
                           "SELECT " PRIVACY_COLUMNS " FROM privacy WHERE run = ?", -1,
                           &statement, NULL) != SQLITE_OK) {
        return fail(record, "cannot prepare", err);
    }
    sqlite3_bind_text(statement, 1, run, -1, SQLITE_TRANSIENT);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        const struct record_privacy row = privacy_of(statement);
        tell(user, &row);
    }
    sqlite3_finalize(statement);
    return 0;
}

static void take_privacy(sqlite3_stmt *statement, void *user)
{
    do {
        const struct record_privacy row = privacy_of(statement);
        json_t *epsilon = isfinite(row.epsilon) ? json_real(row.epsilon) : json_null();
        json_array_append_new(user,
                              json_pack("{s:s, s:s, s:I, s:o, s:f, s:f, s:f, s:s}",
                                        "tier", row.tier, "noise", row.noise, "steps",
                                        (json_int_t)row.steps, "epsilon", epsilon,
                                        "delta", row.delta, "noise_multiplier",
                                        row.noise_multiplier, "q", row.q, "note", ""));
    } while (sqlite3_step(statement) == SQLITE_ROW);
}

json_t *record_privacy_json(const char *folder)
{
    json_t *list = json_array();
    query(folder,
          "SELECT node, noise, tier, max(steps), epsilon, delta, noise_multiplier, q"
          " FROM privacy GROUP BY tier, noise, delta, noise_multiplier, q",
          take_privacy, list);
    return list;
}

int record_finish(struct record *record, const char *run, const char *status,
                  const char *model, struct tiered_error *err)
{
    return execute(record, err,
                   "UPDATE runs SET status = ?, model = ?, finished = datetime('now')"
                   " WHERE run = ?",
                   "sss", status, model ? model : "", run);
}

int record_resume(struct record *record, const char *run, struct tiered_error *err)
{
    return execute(record, err,
                   "UPDATE runs SET status = 'running', finished = NULL WHERE run = ?",
                   "s", run);
}

struct text_out {
    char *text;
    size_t size;
};

static void take_text(sqlite3_stmt *row, void *user)
{
    struct text_out *out = user;
    const char *text = (const char *)sqlite3_column_text(row, 0);
    snprintf(out->text, out->size, "%s", text ? text : "");
}

int record_status(const char *folder, char *out, size_t size)
{
    struct text_out text = {out, size};
    return query(folder, "SELECT status FROM runs", take_text, &text);
}

static void take_round(sqlite3_stmt *row, void *user)
{
    struct record_summary *summary = user;
    const char *metrics = (const char *)sqlite3_column_text(row, 1);
    summary->rounds = sqlite3_column_int64(row, 0);
    summary->metrics = metrics ? json_loads(metrics, 0, NULL) : NULL;
}

void record_summary(const char *folder, struct record_summary *ret)
{
    struct text_out started = {ret->started, sizeof(ret->started)};
    query(folder, "SELECT started FROM runs", take_text, &started);
    query(folder,
          "SELECT round, metrics FROM rounds WHERE path NOT LIKE '%.%'"
          " ORDER BY round DESC LIMIT 1",
          take_round, ret);
}

static void take_json(sqlite3_stmt *row, void *user)
{
    const char *text = (const char *)sqlite3_column_text(row, 0);
    *(json_t **)user = text ? json_loads(text, 0, NULL) : NULL;
}

static bool hosts(const json_t *agent, const char *node)
{
    size_t i;
    json_t *name;
    if (strcmp(text_of(agent, "name"), node) == 0) {
        return true;
    }
    json_array_foreach (json_object_get(agent, "nodes"), i, name) {
        if (strcmp(json_string_value(name) ? json_string_value(name) : "", node) == 0) {
            return true;
        }
    }
    return false;
}

int record_agent_of(const char *folder, const char *node, char *out, size_t size)
{
    json_t *event = NULL, *agent;
    size_t i;
    int result = -1;
    query(folder, "SELECT json FROM events WHERE event = 'run_started' LIMIT 1",
          take_json, &event);
    json_array_foreach (json_object_get(event, "agents"), i, agent) {
        if (hosts(agent, node)) {
            snprintf(out, size, "%s", text_of(agent, "name"));
            result = 0;
            break;
        }
    }
    json_decref(event);
    return result;
}

int record_rounds(struct record *record, const char *run,
                  void (*tell)(void *user, json_t *event), void *user,
                  struct tiered_error *err)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(record->db,
                           "SELECT json FROM events WHERE run = ? AND event ="
                           " 'round_committed' ORDER BY id",
                           -1, &statement, NULL) != SQLITE_OK) {
        return fail(record, "cannot prepare", err);
    }
    sqlite3_bind_text(statement, 1, run, -1, SQLITE_TRANSIENT);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        json_t *event =
            json_loads((const char *)sqlite3_column_text(statement, 0), 0, NULL);
        if (json_is_object(event)) {
            tell(user, event);
        }
        json_decref(event);
    }
    sqlite3_finalize(statement);
    return 0;
}
