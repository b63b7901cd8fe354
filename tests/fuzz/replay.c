/* SPDX-License-Identifier: Apache-2.0 */
/* The main of a fuzz target in an ordinary build: every file of the folders given goes
   through the target once, in the order of names. libFuzzer brings its own main. */
#include <dirent.h>

#include "fuzz.h"

static void replay(const char *path)
{
    struct tiered_bytes bytes = {0};
    struct tiered_error err;
    FUZZ_CHECK(tiered_file_read(path, 1u << 20, &bytes, &err) == 0, "%s", err.text);
    /* A copy of the very size: reads past the end are then seen. */
    size_t size = bytes.size;
    uint8_t *copy = malloc(size ? size : 1);
    FUZZ_CHECK(copy, "out of memory");
    if (size) {
        memcpy(copy, bytes.data, size);
    }
    tiered_bytes_finish(&bytes);
    printf("%s\n", path);
    fflush(stdout); /* the last one named is the one that crashed */
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static int replay_folder(const char *folder)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort), replayed = 0;
    FUZZ_CHECK(n >= 0, "cannot read the folder '%s': %s", folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.') {
            replay(path);
            replayed++;
        }
        free(entries[i]);
    }
    free(entries);
    return replayed;
}

int main(int argc, char **argv)
{
    int replayed = 0;
    for (int i = 1; i < argc; i++) {
        replayed += replay_folder(argv[i]);
    }
    FUZZ_CHECK(replayed > 0, "usage: %s FOLDER…: no input was found", argv[0]);
    printf("%d inputs\n", replayed);
    return 0;
}
