// The contract between fastconv._runtime and the kernel module of each ISA: plain data and function pointers, no C++
// runtime types, so that modules built with different flags can be mixed. Everything is inside one call of Algorithm::run or
// pack; nothing here owns memory, and no kernel allocates any: what does not fit into 16 KB of stack is workspace.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fastconv {

constexpr int abi_version = 12;
constexpr int max_axes = 3;  // spatial axes; fewer are right-aligned: a 1-D problem uses index 2 only, the others are size 1

enum class Dtype : int32_t { float32, float64 };
enum class PaddingMode : int32_t { zeros, reflect, symmetric, replicate, circular };
enum class Direction : int32_t { forward, backward_input, backward_weight };
enum class Activation : int32_t { none, relu, relu6, leaky_relu, sigmoid, tanh, gelu, gelu_tanh, silu, hardswish };

// One validated convolution (fastconv.ConvProblem), forward, or a gradient of it. Channels are per group.
struct Problem {
    Dtype dtype;
    PaddingMode padding_mode;
    Activation activation;
    Direction direction;
    int32_t has_bias, has_residual, strict;
    int32_t tile[max_axes];  // winograd: outputs per tile along each axis; fft: inputs; 1 where nothing is transformed. Else 0
    double activation_parameter;
    int64_t batch, groups, in_channels, out_channels;
    int64_t input[max_axes], output[max_axes], kernel[max_axes], stride[max_axes], dilation[max_axes], pad_lo[max_axes],
        pad_hi[max_axes];
};

// The identity of packed weights: what their bytes may depend on, everything else 0. Problems with the same one, byte by byte,
// accept each other's; nothing else of a problem reaches the functions that pack.
inline Problem packing_of(const Problem& p) {
    Problem of;
    std::memset(&of, 0, sizeof of);
    of.dtype = p.dtype, of.has_bias = p.has_bias, of.groups = p.groups, of.in_channels = p.in_channels, of.out_channels = p.out_channels;
    for (int a = 0; a < max_axes; ++a)
        of.tile[a] = p.tile[a], of.kernel[a] = p.kernel[a], of.stride[a] = p.stride[a], of.dilation[a] = p.dilation[a];
    return of;
}

// Weights as they are, C-contiguous, and how much they and the bias take.
inline size_t weight_bytes(const Problem& p) {
    const int64_t size = p.dtype == Dtype::float32 ? 4 : 8, taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
    return size_t(p.groups * p.out_channels * p.in_channels * taps * size);
}
inline size_t plain_bytes(const Problem& p) {
    return weight_bytes(p) + (p.has_bias ? size_t(p.groups * p.out_channels) * (p.dtype == Dtype::float32 ? 4 : 8) : 0);
}

// An array [batch, channel (all groups), d, h, w] in that index order whatever its memory layout; strides in elements.
struct View {
    void* data;
    int64_t batch, channel, space[max_axes];
};

// body(context, part) for part = 0 .. parts-1, each exactly once, on at most `parts` threads; returns when all are done.
using Body = void (*)(void* context, int64_t part);
using ParallelFor = void (*)(int64_t parts, Body body, void* context);

// How a long call gives way to whoever waits for its thread. Between pieces of work any thread asks; told true, all leave what is
// left, and the output is unspecified. `pieces`: into how many the share of a thread is cut at least.
struct Interrupt {
    bool (*asked)(void* whose);  // null: the call is short
    void* whose;
    int64_t pieces;
};

struct Call {
    View input, output, residual;  // residual.data may be null, and may equal output.data
    // Of the forward direction's output, where another gradient is computed, which is `output` then. In that of the weight its batch
    // are the output channels, its channels the input channels of a group, its space the taps; in that of the input `packed` are the
    // weights as they are, and bias and residual belong to it.
    View gradient;
    const void* packed;            // what pack() wrote, weights and bias; where they are read in place the weights as they are
    const void* bias;              // contiguous, or null; only where weights are read in place
    void* workspace;               // workspace_bytes(problem, threads) bytes, 64-byte aligned, uninitialised
    bool in_place;                 // see Algorithm
    int32_t threads;
    ParallelFor parallel_for;
    Interrupt interrupt;
    const View* lie;               // how weights in place lie, as in PackCall; null: C-contiguous
};

struct PackCall {
    const void *weight, *bias;  // C-contiguous (out channels of all groups, in channels, *kernel), but see `lie`; contiguous, or null
    void* packed;               // packed_bytes(packing) bytes, 64-byte aligned
    void* workspace;            // pack_workspace_bytes(packing, threads) bytes, 64-byte aligned, uninitialised
    int32_t threads;
    ParallelFor parallel_for;
    bool shared;                // several threads are going to read all of it: it is best written past the caches
    const View* lie;            // how the weights lie, channels of all groups in its batch; null: C-contiguous
};

struct Algorithm {
    const char* name;                                          // "gemm", "direct", ...
    const char* (*refuses)(const Problem&);                    // nullptr, or the reason in one line; the same on every ISA
    size_t (*packed_bytes)(const Problem& packing);            // packing: packing_of(problem); plain_bytes in place
    size_t (*workspace_bytes)(const Problem&, int threads);
    size_t (*pack_workspace_bytes)(const Problem& packing, int threads);
    void (*pack)(const Problem& packing, const PackCall&);     // null: all weights are read in place
    // Whether run() takes weights in place, C-contiguous unless it packs any order: the caller's or, where calls share them, those of a copy with the bias
    // behind them; not a byte beyond them. once: those of one call, which may be so where those that calls share are not; never the
    // other way round. Both ways give the same bits.
    bool (*in_place)(const Problem&, bool once);
    bool (*shares_packed)(const Problem&, int threads);  // whether several threads read all packed weights; null: they do not
    void (*run)(const Problem&, const Call&);
    bool packs_any_order;  // of the weights' axes: others get them C-contiguous
};

struct Pool;  // pool_abi.hpp
struct Pointwise;  // pointwise_abi.hpp

struct Module {
    int32_t abi;
    const char* isa;
    int32_t float32_lanes;
    int32_t algorithm_count;
    const Algorithm* algorithms;
    // `repeats` x a fixed number of independent fused multiply-adds on one thread; returns the flops done
    double (*fma_loop)(Dtype, int64_t repeats);
    const Pool* pool;
    const Pointwise* pointwise;
};

}  // namespace fastconv
