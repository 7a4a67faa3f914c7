// Writing keys and values into KV blocks (see ck_attention for the layout).
#include "ckernels.h"
#include "rounding.h"

#include <math.h>

/// One head's vector of one token on its way into a block: element d goes to place(d).
typedef struct kv_target {
    void *head;
    float *scale;
    size_t place;                // of element 0
    size_t stride;               // from one step of elements to the next
    size_t shift;                // a step has 1 << shift elements
} kv_target;

static inline size_t place_of(const kv_target *t, size_t d) {
    return t->place + (d >> t->shift) * t->stride + (d & (((size_t)1 << t->shift) - 1));
}

static void store_vector(const kv_target *t, ck_format format, const float *x, size_t count) {
    switch (format) {
    case CK_FORMAT_F32:
        for (size_t d = 0; d < count; d++) ((float *)t->head)[place_of(t, d)] = x[d];
        break;
    case CK_FORMAT_BF16: {
        uint16_t narrow[CK_MAX_HEAD_DIM];
        ck_narrow(x, CK_ELEMENT_F32, count, narrow);
        for (size_t d = 0; d < count; d++) ((uint16_t *)t->head)[place_of(t, d)] = narrow[d];
        break;
    }
    default: {
        float largest = 0;
        for (size_t d = 0; d < count; d++) largest = fmaxf(largest, fabsf(x[d]));
        *t->scale = largest / 127.0f;
        float inverse = largest > 0x1p-100f ? 127.0f / largest : 0;
        for (size_t d = 0; d < count; d++)
            ((int8_t *)t->head)[place_of(t, d)] = (int8_t)ck_nearest(x[d] * inverse);
    }
    }
}

/// Zero in the elements of one place, whatever was there.
static void clear_vector(const kv_target *t, ck_format format, size_t count) {
    for (size_t d = 0; d < count; d++) {
        size_t i = place_of(t, d);
        if (format == CK_FORMAT_BF16) ((uint16_t *)t->head)[i] = 0;
        else ((int8_t *)t->head)[i] = 0;
    }
}

void ck_store_kv(const ck_kv_write *w, size_t token, bool is_last, const float *k,
                 const float *v) {
    size_t dim = w->head_dim;
    size_t columns = (dim + CK_LANES - 1) / CK_LANES * CK_LANES;
    size_t pair = w->format == CK_FORMAT_F32 ? 1 : 2;
    for (size_t head = 0; head < w->kv_head_count; head++) {
        kv_target key = {w->block + w->key_offset + head * w->key_head_byte_count,
                         (float *)(w->block + w->key_scale_offset) + head * CK_LANES + token,
                         token * pair, CK_LANES * pair, pair - 1};
        store_vector(&key, w->format, k + head * dim, dim);
        if (pair == 2 && dim % 2 == 1) {
            kv_target rest = key;
            rest.place = place_of(&key, dim);
            clear_vector(&rest, w->format, 1);
        }
        kv_target value = {w->block + w->value_offset + head * w->value_head_byte_count,
                           (float *)(w->block + w->value_scale_offset) + head * CK_LANES + token,
                           token / pair * columns * pair + token % pair, pair, 0};
        store_vector(&value, w->format, v + head * dim, dim);
        if (pair == 2 && token % 2 == 0 && is_last) {
            value.place += 1;
            clear_vector(&value, w->format, dim);
        }
    }
}
