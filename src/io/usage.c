#include "io/usage.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t usage_peak_rss_bytes(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[512];
    uint64_t kib = 0;

    if (!status)
        return 0;
    while (fgets(line, sizeof(line), status)) {
        if (sscanf(line, "VmHWM: %" SCNu64 " kB", &kib) == 1)
            break;
    }
    fclose(status);
    return kib * KIB;
}

/* "a,b,c" holds `word`? */
static bool list_holds(const char *list, const char *word)
{
    size_t bytes = strlen(word);

    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (!strncmp(p, word, bytes) && (p[bytes] == ',' || p[bytes] == '\0'))
            return true;
    }
    return false;
}

/*
 * The path of this process's memory group within its hierarchy.  A line of /proc/self/cgroup is
 * "number:controllers:path"; version 2 has no controllers, and is used where version 1 does not
 * count memory.
 */
static bool find_group(char path[PATH_MAX], bool *version_1)
{
    FILE *groups = fopen("/proc/self/cgroup", "re");
    char *line = NULL;
    size_t line_bytes = 0;
    bool found = false;

    *version_1 = false;
    if (!groups)
        return false;
    while (!*version_1 && getline(&line, &line_bytes, groups) > 0) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;

        if (!group)
            continue;
        *controllers++ = '\0';
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        if (strlen(group) >= PATH_MAX || (*controllers && !list_holds(controllers, "memory")))
            continue;
        *version_1 = *controllers != '\0';
        found = true;
        memcpy(path, group, strlen(group) + 1);
    }
    free(line);
    fclose(groups);
    return found;
}

/*
 * Where the hierarchy is mounted, and which group the mount shows as its root.  A line of
 * /proc/self/mountinfo is "id parent major:minor root mount-point options... - type source
 * super-options".
 */
static bool find_mount(bool version_1, char root[PATH_MAX], char mount_point[PATH_MAX])
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t line_bytes = 0;
    bool found = false;

    if (!mounts)
        return false;
    while (!found && getline(&line, &line_bytes, mounts) > 0) {
        char *rest = strstr(line, " - ");
        char *words[6] = { 0 };
        char *saved = NULL;
        char type[32], super[512];

        if (!rest || sscanf(rest, " - %31s %*s %511s", type, super) != 2 ||
            strcmp(type, version_1 ? "cgroup" : "cgroup2") != 0 ||
            (version_1 && !list_holds(super, "memory")))
            continue;
        *rest = '\0';
        words[0] = strtok_r(line, " ", &saved);
        for (int i = 1; i < 6 && words[i - 1]; i++)
            words[i] = strtok_r(NULL, " ", &saved);
        if (!words[4] || strlen(words[3]) >= PATH_MAX || strlen(words[4]) >= PATH_MAX)
            continue;
        memcpy(root, words[3], strlen(words[3]) + 1);
        memcpy(mount_point, words[4], strlen(words[4]) + 1);
        found = true;
    }
    free(line);
    fclose(mounts);
    return found;
}

static bool read_number(const char *path, uint64_t *out)
{
    FILE *file = fopen(path, "re");
    bool found;

    if (!file)
        return false;
    found = fscanf(file, "%" SCNu64, out) == 1;
    fclose(file);
    return found;
}

uint64_t usage_cgroup_peak_bytes(void)
{
    char group[PATH_MAX], root[PATH_MAX], mount_point[PATH_MAX];
    char path[3 * PATH_MAX];
    const char *below = group;
    const char *name;
    uint64_t bytes = 0;
    bool version_1;
    size_t root_bytes;

    if (!find_group(group, &version_1) || !find_mount(version_1, root, mount_point))
        return 0;
    name = version_1 ? "memory.max_usage_in_bytes" : "memory.peak";

    /* In a container the mount may show only the group itself, whose path then is its root. */
    root_bytes = strcmp(root, "/") != 0 ? strlen(root) : 0;
    if (!strncmp(group, root, root_bytes))
        below = group + root_bytes;
    snprintf(path, sizeof(path), "%s%s/%s", mount_point, below, name);
    return read_number(path, &bytes) ? bytes : 0;
}
