/*
 * view.h - the model that a quantised base stands for
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef SCHEME_VIEW_H
#define SCHEME_VIEW_H

#include "scheme/find.h"

/* Make view and tensors of `base` from what was found; on failure the caller releases it. */
int view_make(struct scheme_base *base, const struct scheme_find *find, struct error *err);

#endif
