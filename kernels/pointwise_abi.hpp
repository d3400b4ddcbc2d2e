// The contract of abi.hpp for what a network needs beside convolution: functions of single elements, batch and layer normalisation, softmax
// and cross entropy, each with its gradient, and steps of optimisers. No kernel allocates: the workspace is what the functions here say.
#pragma once
#include "abi.hpp"

namespace fastconv {

// How a call is shared, and how it gives way.
struct Team {
    void* workspace;  // 64-byte aligned, uninitialised
    int32_t threads;
    ParallelFor parallel_for;
    Interrupt interrupt;
};

enum class Function : int32_t { none, relu, relu6, leaky_relu, sigmoid, tanh, gelu, gelu_tanh, silu, hardswish, exp, erf };  // Activation's first

// result = function(input), or gradient * function'(input), in the result's memory order: axes are merged, the last is the shortest way
// through the result's memory. Strides in elements; of the gradient only where there is one.
struct Elements {
    static constexpr int most_axes = 64;  // NumPy's
    enum Array { result, input, gradient, arrays };
    Dtype dtype;
    Function function;
    int32_t has_gradient;
    double parameter;  // leaky_relu's slope
    int32_t axes;
    int64_t shape[most_axes], stride[arrays][most_axes];
    void* data[arrays];

    int64_t size() const {
        int64_t count = 1;
        for (int a = 0; a < axes; ++a) count *= shape[a];
        return count;
    }
    size_t workspace_bytes(int threads) const { return size_t(threads) * 64; }
};

// An array [outer, middle, inner] with strides in elements.
struct Cube {
    void* data;
    int64_t outer, middle, inner;
};

// Batch normalisation of [batch, channel, space]. Of all arrays either space is adjacent, or channels are, and there is one batch.
struct Normalization {
    Dtype dtype;
    int32_t training, channels_last;
    int32_t known;  // whether mean and variance are there in training, too
    int64_t batch, channels, space;
    int32_t rectifies;  // whether an activation follows: 0 below 0, and above `limit`, unless that is NaN, the limit
    double limit;
    double epsilon;
    Cube input, gradient, result;  // gradient: of the output, for the gradient of the input; result: may be null then
    const double *weight, *bias;   // of each channel; bias: for gradients only of what rectifies
    double *mean, *variance;       // read, or, in training and not known, written: the biased variance
    double *grad_weight, *grad_bias;

    static constexpr int64_t most_chunks = 64;     // partial sums of a channel, whatever the threads
    static constexpr int64_t most_columns = 1024;  // positions of small planes that a thread has before it
    static constexpr size_t desk_bytes = (7 * most_columns + 5 * 16) * sizeof(double);
    size_t workspace_bytes(int threads) const {
        return size_t(threads) * (64 + desk_bytes) + (channels_last ? size_t(channels + 64) * (most_chunks * 3 + 4) * sizeof(double) : 0);
    }
};

// Layer normalisation of contiguous rows, each by its own mean and variance.
struct LayerNormalization {
    Dtype dtype;
    int32_t known;  // whether mean and inverse are there, too; else they are written
    int64_t rows, length;
    double epsilon;
    const void *input, *gradient;  // gradient: of the output, for those of input, weight and bias
    void* result;
    const void *weight, *bias;  // [length], of the dtype, or null: 1 and 0
    double *mean, *inverse;     // [rows]; 1 / sqrt(variance + epsilon)
    double *grad_weight, *grad_bias;  // [length]
    size_t workspace_bytes(int threads) const { return size_t(threads) * 64; }
};

// Rows along the middle axis: it is adjacent and inner is 1, or inner is adjacent.
struct Rows {
    enum Kind : int32_t { softmax, log_softmax, softmax_gradient, log_softmax_gradient, cross_entropy, cross_entropy_gradient };
    Dtype dtype;
    Kind kind;
    int64_t outer, length, inner;
    Cube input, gradient, result;  // input: of a gradient of softmax its output. gradient: of the output
    // of cross entropy: [outer, inner], [length] or null; the sum of all weights
    const int64_t* target;
    const double* weight;
    double weight_sum, smoothing;
    int64_t ignored;
    double* loss;           // [outer, inner], written; its gradient, read
    size_t workspace_bytes(int threads) const { return size_t(threads) * 64; }
};

// What a step of an optimiser makes of a parameter, element by element; all arrays are as long, and contiguous.
struct Update {
    enum Rule : int32_t { sgd, adam };
    Dtype dtype;
    Rule rule;
    int32_t nesterov;
    int64_t count;
    void *values, *first, *second;  // of sgd the velocity, or null; of adam the means of gradients and of their squares
    const void* gradient;
    double rate, decay;           // of adam the rate over 1 - beta1^t
    double momentum, more;        // of sgd, and how much of the gradient is added; of adam the two betas
    double correction, epsilon;   // of adam: sqrt(1 - beta2^t)
    double shrink;                // of adam: what values are multiplied by first
    size_t workspace_bytes(int threads) const { return size_t(threads) * 64; }
};

struct Pointwise {
    void (*elements)(const Elements&, const Team&);
    void (*batch_norm)(const Normalization&, const Team&);
    void (*batch_norm_gradient)(const Normalization&, const Team&);
    void (*layer_norm)(const LayerNormalization&, const Team&);
    void (*rows)(const Rows&, const Team&);
    void (*update)(const Update&, const Team&);
};

}  // namespace fastconv
