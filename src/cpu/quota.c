#include "cpu/quota.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The first line of a file, without its end; false if there is none or it is too long. */
static bool read_line(const char *path, char *line, size_t line_bytes)
{
    FILE *file = fopen(path, "re");
    bool found;

    if (!file)
        return false;
    found = fgets(line, (int)line_bytes, file) && strchr(line, '\n');
    if (found)
        *strchr(line, '\n') = '\0';
    fclose(file);
    return found;
}

/* The lesser of two limits, of which 0 is none. */
static unsigned tighter(unsigned x, unsigned y)
{
    if (x == 0 || y == 0)
        return x + y;
    return x < y ? x : y;
}

static unsigned cpus_of(long long quota_us, long long period_us)
{
    long long cpus;

    if (quota_us <= 0 || period_us <= 0)
        return 0;
    cpus = quota_us / period_us + (quota_us % period_us != 0);
    return cpus > INT_MAX ? 0 : (unsigned)cpus;
}

/* The limit of one directory of the control group file system. */
static unsigned directory_limit(const char *directory)
{
    char path[PATH_MAX + 32];
    char line[64];
    long long quota;
    long long period;

    snprintf(path, sizeof(path), "%s/cpu.max", directory);
    if (read_line(path, line, sizeof(line)))
        return sscanf(line, "%lld %lld", &quota, &period) == 2 ? cpus_of(quota, period) : 0;

    snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", directory);
    if (!read_line(path, line, sizeof(line)) || sscanf(line, "%lld", &quota) != 1)
        return 0;
    snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", directory);
    if (!read_line(path, line, sizeof(line)) || sscanf(line, "%lld", &period) != 1)
        return 0;
    return cpus_of(quota, period);
}

/*
 * The limits of base/group and of every directory above it, down to base.  Inside a container the
 * group may be named as the host sees it; the directories that are not there limit nothing.
 */
static unsigned hierarchy_limit(const char *base, const char *group)
{
    char path[PATH_MAX];
    size_t base_length = strlen(base);
    int length = snprintf(path, sizeof(path), "%s%s", base, strstr(group, "..") ? "" : group);
    unsigned limit = 0;

    if (length < 0 || (size_t)length >= sizeof(path))
        return 0;
    for (;;) {
        char *slash;

        limit = tighter(limit, directory_limit(path));
        slash = strrchr(path, '/');
        if (!slash || (size_t)(slash - path) < base_length)
            return limit;
        *slash = '\0';
    }
}

/* Whether the comma-separated list of controllers has "cpu" in it. */
static bool has_cpu_controller(const char *list)
{
    for (const char *name = list; name; name = strchr(name, ',')) {
        name += *name == ',';
        if (strncmp(name, "cpu", 3) == 0 && (name[3] == '\0' || name[3] == ','))
            return true;
    }
    return false;
}

/* One line of /proc/self/cgroup: "0::/group", or "4:cpu,cpuacct:/group" in version 1. */
static unsigned line_limit(const char *root, char *line)
{
    char base[PATH_MAX];
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    unsigned limit;

    if (!group)
        return 0;
    *group++ = '\0';
    controllers++;
    if (*controllers == '\0') {
        snprintf(base, sizeof(base), "%s/sys/fs/cgroup", root);
        return hierarchy_limit(base, group);
    }
    if (!has_cpu_controller(controllers))
        return 0;
    snprintf(base, sizeof(base), "%s/sys/fs/cgroup/%s", root, controllers);
    limit = hierarchy_limit(base, group);
    snprintf(base, sizeof(base), "%s/sys/fs/cgroup/cpu", root);
    return tighter(limit, hierarchy_limit(base, group));
}

unsigned quota_cpus(const char *root)
{
    char path[PATH_MAX];
    char line[PATH_MAX];
    unsigned limit = 0;
    FILE *file;

    snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    file = fopen(path, "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        limit = tighter(limit, line_limit(root, line));
    }
    fclose(file);
    return limit;
}
