// All kernels, for the level whose macros are defined.
#pragma once

#include "vector.h"

#include "body_matmul.h"

#include "body_integer.h"
#include "body_pairs.h"

#include "body_forms.h"

#include "body_adapter.h"
#include "body_attention.h"
#include "body_rows.h"
#include "body_structured.h"
