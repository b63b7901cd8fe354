/* SPDX-License-Identifier: Apache-2.0 */
/* The `tiered` command: finds the subcommand and hands over. */
#include "orchestrator/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/base.h"
#include "core/base/version.h"

int cmd_help(const struct tiered_command *self)
{
    fputs(self->help, stdout);
    return EXIT_DONE;
}

static void complain(const struct tiered_command *self, const char *fmt, va_list args)
{
    fprintf(stderr, "tiered %s: ", self->name);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\ntry 'tiered %s --help'\n", self->name);
}

int cmd_usage(const struct tiered_command *self, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    complain(self, fmt, args);
    va_end(args);
    return EXIT_USAGE;
}

int cmd_bad_value(const struct tiered_command *self, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    complain(self, fmt, args);
    va_end(args);
    return EXIT_FAILED;
}

int cmd_bad_flag(const struct tiered_command *self, int result, char **argv)
{
    const char *flag = argv[optind - 1];
    return result == ':' ? cmd_usage(self, "'%s' needs a value", flag)
                         : cmd_usage(self, "unknown flag '%s'", flag);
}

int cmd_error(const struct tiered_error *err)
{
    if (err->file[0] && err->line) {
        fprintf(stderr, "%s:%u:%u: error: %s\n", err->file, err->line, err->column,
                err->text);
    } else {
        fprintf(stderr, "error: %s\n", err->text);
    }
    return EXIT_FAILED;
}

void cmd_warn_refused(void *user, const char *path, const struct tiered_error *err)
{
    (void)user;
    (void)path; /* the text names it */
    fprintf(stderr, "warning: %s\n", err->text);
}

static void print_help(FILE *out)
{
    fputs("usage: tiered COMMAND [ARGUMENT]...\n\n"
          "Hierarchical federated learning from one topology file.\n\ncommands:\n",
          out);
    for (size_t i = 0; tiered_commands[i]; i++) {
        fprintf(out, "  %-10s %s\n", tiered_commands[i]->name,
                tiered_commands[i]->summary);
    }
    fputs("\n'tiered COMMAND --help' says more of each. "
          "'tiered --version' prints the version.\n",
          out);
}

static const struct tiered_command *find(const char *name)
{
    for (size_t i = 0; tiered_commands[i]; i++) {
        if (strcmp(tiered_commands[i]->name, name) == 0) {
            return tiered_commands[i];
        }
    }
    return NULL;
}

static int unknown(const char *name)
{
    const char *names[64];
    size_t n = 0;
    for (; tiered_commands[n] && n < TIERED_COUNT(names); n++) {
        names[n] = tiered_commands[n]->name;
    }
    const char *near = tiered_nearest(name, names, n);
    fprintf(stderr, "tiered: unknown command '%s'", name);
    if (near) {
        fprintf(stderr, "; did you mean '%s'?", near);
    }
    fputs("\ntry 'tiered --help'\n", stderr);
    return EXIT_USAGE;
}

/* A descriptor that is closed would be the next file's that is opened: what is printed
   must not end up in a database. Reading and writing these fail. */
static void keep_standard_files(void)
{
    static const int flags[] = {O_WRONLY, O_RDONLY, O_WRONLY};
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", flags[fd]) < 0) {
            return;
        }
    }
}

/* An answer that did not get out is no success. */
static int check_stdout(int code)
{
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_DONE) {
        fprintf(stderr, "error: cannot write to stdout: %s\n",
                strerror(errno ? errno : EIO));
        return EXIT_FAILED;
    }
    return code;
}

int main(int argc, char **argv)
{
    keep_standard_files();
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        const struct tiered_command *about = argc > 2 ? find(argv[2]) : NULL;
        if (about) {
            return cmd_help(about);
        }
        print_help(stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("tiered " TIERED_VERSION);
        return EXIT_DONE;
    }
    const struct tiered_command *command = find(argv[1]);
    return command ? check_stdout(command->run(command, argc - 1, argv + 1))
                   : unknown(argv[1]);
}
