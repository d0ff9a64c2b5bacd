/*
 * isa.h - the tables that cpu.c chooses from
 *
 * Only cpu.c may name them: calling one that the processor lacks is an illegal
 * instruction.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CPU_ISA_H
#define CPU_ISA_H

#include "compute/encode.h"
#include "compute/fold.h"
#include "compute/quant.h"

extern const struct fold_ops fold_avx512;
extern const struct fold_ops fold_avx2;
extern const struct fold_ops fold_neon;

extern const struct quant_ops quant_avx512;
extern const struct quant_ops quant_avx2;
extern const struct quant_ops quant_neon;

extern const struct encode_ops encode_avx512;
extern const struct encode_ops encode_avx2;
extern const struct encode_ops encode_neon;

#endif
