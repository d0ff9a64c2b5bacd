#include "base/slice.h"

#include <sched.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHORTEST_NS 100000u /* the kernel takes no less */

/* The first version of the kernel's struct sched_attr, which not every C library declares. */
struct attributes {
    uint32_t bytes;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime; /* the slice of a thread of SCHED_OTHER, in nanoseconds */
    uint64_t deadline;
    uint64_t period;
};

static bool get(struct attributes *out)
{
    *out = (struct attributes){ 0 };
    return syscall(SYS_sched_getattr, 0, out, (unsigned)sizeof(*out), 0u) == 0 &&
           out->policy == SCHED_OTHER;
}

static bool set(const struct attributes *attributes)
{
    return syscall(SYS_sched_setattr, 0, attributes, 0u) == 0;
}

uint64_t slice_shorten(void)
{
    struct attributes attributes;
    uint64_t before;

    if (!get(&attributes) || attributes.runtime <= SHORTEST_NS)
        return 0;
    before = attributes.runtime;
    attributes.runtime = SHORTEST_NS;
    return set(&attributes) ? before : 0;
}

void slice_restore(uint64_t nanoseconds)
{
    struct attributes attributes;

    if (nanoseconds == 0 || !get(&attributes))
        return;
    attributes.runtime = nanoseconds;
    (void)set(&attributes);
}
