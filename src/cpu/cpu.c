#include "cpu/cpu.h"

#include "cpu/isa.h"
#include "cpu/quota.h"

#include <sched.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static const struct fold_ops *const folds[] = { &fold_avx512, &fold_avx2, &fold_scalar, NULL };
static const struct quant_ops *const quants[] = { &quant_avx512, &quant_avx2, &quant_scalar, NULL };
static const struct encode_ops *const encodes[] = { &encode_avx512, &encode_avx2, &encode_scalar,
                                                    NULL };

/* The builtin also asks whether the operating system saves the registers. */
static bool has_avx2(void)
{
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;

    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return false;
    /* clang 14 does not know "f16c"; it uses the registers of AVX, which are there. */
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* The first table that may be called. */
static unsigned best_table(void)
{
    if (!has_avx2())
        return 2;
    return has_avx512() ? 0 : 1;
}

#elif defined(__aarch64__)

/* Every aarch64 processor has NEON. */
static const struct fold_ops *const folds[] = { &fold_neon, &fold_scalar, NULL };
static const struct quant_ops *const quants[] = { &quant_neon, &quant_scalar, NULL };
static const struct encode_ops *const encodes[] = { &encode_neon, &encode_scalar, NULL };

static unsigned best_table(void)
{
    return 0;
}

#else

static const struct fold_ops *const folds[] = { &fold_scalar, NULL };
static const struct quant_ops *const quants[] = { &quant_scalar, NULL };
static const struct encode_ops *const encodes[] = { &encode_scalar, NULL };

static unsigned best_table(void)
{
    return 0;
}

#endif

const struct fold_ops *const *cpu_fold_available(void)
{
    return &folds[best_table()];
}

const struct quant_ops *const *cpu_quant_available(void)
{
    return &quants[best_table()];
}

const struct encode_ops *const *cpu_encode_available(void)
{
    return &encodes[best_table()];
}

const struct fold_ops *cpu_fold_find(const char *name)
{
    const struct fold_ops *const *table = cpu_fold_available();

    while (name && *table && strcmp((*table)->name, name) != 0)
        table++;
    return *table;
}

const struct quant_ops *cpu_quant_find(const char *name)
{
    const struct quant_ops *const *table = cpu_quant_available();

    while (name && *table && strcmp((*table)->name, name) != 0)
        table++;
    return *table;
}

const struct encode_ops *cpu_encode_find(const char *name)
{
    const struct encode_ops *const *table = cpu_encode_available();

    while (name && *table && strcmp((*table)->name, name) != 0)
        table++;
    return *table;
}

/* Processors in the affinity mask; 0 if it cannot be read. */
static unsigned affinity_cpus(void)
{
    /* The kernel refuses a set that is smaller than its own. */
    for (int limit = 1024; limit <= 1 << 20; limit *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)limit);
        size_t set_bytes = CPU_ALLOC_SIZE((size_t)limit);
        int count = 0;

        if (!set)
            return 0;
        if (sched_getaffinity(0, set_bytes, set) == 0)
            count = CPU_COUNT_S(set_bytes, set);
        CPU_FREE(set);
        if (count > 0)
            return (unsigned)count;
    }
    return 0;
}

unsigned cpu_count(void)
{
    unsigned count = affinity_cpus();
    unsigned quota = quota_cpus("");

    if (quota && (count == 0 || quota < count))
        count = quota;
    return count ? count : 1;
}
