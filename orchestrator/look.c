/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at runs from another process. */
#include "orchestrator/look.h"

#include <curl/curl.h>
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/file.h>
#include <unistd.h>

#define ANSWER_LIMIT (256u << 20)

enum { OPT_RUNS = 256, OPT_RUN, OPT_JSON, OPT_FOLLOW, OPT_HELP };

static const struct option flags[] = {
    {"runs", required_argument, NULL, OPT_RUNS},
    {"run", required_argument, NULL, OPT_RUN},
    {"json", no_argument, NULL, OPT_JSON},
    {"follow", no_argument, NULL, OPT_FOLLOW},
    {"output", required_argument, NULL, 'o'},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static int take_positional(const struct tiered_command *self, int argc, char **argv,
                           const char *argument, struct look_arguments *ret)
{
    if (argument) {
        if (optind >= argc) {
            return cmd_usage(self, "%s is missing", argument);
        }
        ret->argument = argv[optind++];
    } else if (optind < argc) {
        ret->run = argv[optind++];
    }
    return optind < argc ? cmd_usage(self, "unexpected argument '%s'", argv[optind])
                         : -1;
}

int look_parse(const struct tiered_command *self, int argc, char **argv,
               const char *argument, struct look_arguments *ret)
{
    int c;
    *ret = (struct look_arguments){.runs = "runs"};
    optind = 1;
    while ((c = getopt_long(argc, argv, ":o:f", flags, NULL)) != -1) {
        switch (c) {
        case OPT_RUNS:
            ret->runs = optarg;
            break;
        case OPT_RUN:
            ret->run = optarg;
            break;
        case OPT_JSON:
            ret->json = true;
            break;
        case OPT_FOLLOW:
        case 'f':
            ret->follow = true;
            break;
        case 'o':
            ret->output = optarg;
            break;
        case OPT_HELP:
            return cmd_help(self);
        default:
            return cmd_bad_flag(self, c, argv);
        }
    }
    return take_positional(self, argc, argv, argument, ret);
}

static bool is_run(const char *runs, const char *name)
{
    TIERED_FREE char *path = NULL;
    return name[0] != '.' && asprintf(&path, "%s/%s/run.json", runs, name) >= 0 &&
           access(path, F_OK) == 0;
}

/* Ids end in the time they began and four digits: "name-20260131-120000-ab12". */
static int by_time(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    size_t nx = strlen(x), ny = strlen(y);
    int order = strcmp(nx > 20 ? x + nx - 20 : x, ny > 20 ? y + ny - 20 : y);
    return order ? order : strcmp(x, y);
}

int look_all(const char *runs, char ***ret, size_t *ret_n, struct tiered_error *err)
{
    char **names = NULL;
    size_t n = 0;
    DIR *dir = opendir(runs);
    if (!dir) {
        return tiered_fail(err, TIERED_ENOENT,
                           "there is no folder '%s'; name another one with --runs",
                           runs);
    }
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (!is_run(runs, entry->d_name)) {
            continue;
        }
        char **more = realloc(names, (n + 1) * sizeof(char *));
        char *name = strdup(entry->d_name);
        if (!more || !name) {
            free(name);
            look_free(more ? more : names, n);
            closedir(dir);
            return tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
        names = more;
        names[n++] = name;
    }
    closedir(dir);
    if (n > 1) {
        qsort(names, n, sizeof(char *), by_time);
    }
    *ret = names;
    *ret_n = n;
    return 0;
}

void look_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(names[i]);
    }
    free(names);
}

static int find_newest(const struct look_arguments *args, char **ret_folder,
                       struct tiered_error *err)
{
    char **names;
    size_t n;
    if (look_all(args->runs, &names, &n, err) < 0) {
        return -1;
    }
    int result =
        n == 0 ? tiered_fail(err, TIERED_ENOENT, "there is no run in '%s'", args->runs)
        : asprintf(ret_folder, "%s/%s", args->runs, names[n - 1]) < 0
            ? tiered_fail(err, TIERED_ENOMEM, "out of memory")
            : 0;
    look_free(names, n);
    return result;
}

int look_find(const struct look_arguments *args, char **ret_folder,
              struct tiered_error *err)
{
    if (!args->run) {
        return find_newest(args, ret_folder, err);
    }
    if (strchr(args->run, '/') || !is_run(args->runs, args->run)) {
        return tiered_fail(err, TIERED_ENOENT,
                           "there is no run '%s' in '%s'; 'tiered runs' lists them",
                           args->run, args->runs);
    }
    return asprintf(ret_folder, "%s/%s", args->runs, args->run) < 0
               ? tiered_fail(err, TIERED_ENOMEM, "out of memory")
               : 0;
}

bool look_is_live(const char *folder)
{
    TIERED_FREE char *path = NULL;
    if (asprintf(&path, "%s/lock", folder) < 0) {
        path = NULL;
        return false;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool live = flock(fd, LOCK_SH | LOCK_NB) < 0;
    close(fd);
    return live;
}

static size_t collect(char *data, size_t size, size_t n, void *user)
{
    struct tiered_bytes *bytes = user;
    if (bytes->size + size * n > ANSWER_LIMIT ||
        tiered_bytes_append(bytes, data, size * n, NULL) < 0) {
        return 0;
    }
    return size * n;
}

static int fetch(const char *url, struct tiered_bytes *ret, struct tiered_error *err)
{
    CURL *curl = curl_easy_init();
    if (!curl) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* it is this machine */
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 10L);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, ret);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_cleanup(curl);
    return code == CURLE_OK ? 0
                            : tiered_fail(err, TIERED_EIO, "'%s': %s", url,
                                          curl_easy_strerror(code));
}

json_t *look_get(const char *folder, const char *path, struct tiered_error *err)
{
    TIERED_FREE char *file = NULL, *url = NULL;
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes bytes = {0};
    if (asprintf(&file, "%s/http.json", folder) < 0) {
        file = NULL;
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    json_t *address = json_load_file(file, 0, NULL);
    const char *base = json_string_value(json_object_get(address, "url"));
    if (!base || asprintf(&url, "%s%s", base, path) < 0) {
        url = NULL;
        json_decref(address);
        tiered_fail(err, TIERED_EIO, "'%s' does not say where the run is reached",
                    file);
        return NULL;
    }
    json_decref(address);
    if (fetch(url, &bytes, err) < 0) {
        return NULL;
    }
    json_t *value = json_loadb((const char *)bytes.data, bytes.size, 0, NULL);
    if (!value) {
        tiered_fail(err, TIERED_EPEER, "'%s' did not answer with JSON", url);
    }
    return value;
}

const char *look_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

double look_number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}
