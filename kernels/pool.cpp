// Pooling: who does what. Forward by rows (pool_forward.hpp) or by planes (pool_planes.hpp), with places in pool_indices.cpp; gradients in
// pool_gradient.cpp.
#include "pool_planes.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

template <class T>
const Reduction<T>& reduction_of(const PoolProblem& p) {
    if (p.operation == Pooling::max) return reduction<T, Largest<T>>;
    return p.operation == Pooling::min ? reduction<T, Smallest<T>> : reduction<T, Sum<T>>;
}

// body(worker) with the one for this call
template <class T, class Body>
auto with_worker(const PoolProblem& p, const PoolCall& call, const Body& body) {
    const Reduction<T>& does = reduction_of<T>(p);
    if (Whole<T>::suits(p, call)) return body(Whole<T>(p, call, does));
    if (WholePixels<T>::suits(p, call)) return body(WholePixels<T>(p, call, does));
    const Forward<T> rows(p, call, does);
    if (!rows.flat() && Turned<T>::suits(p, call)) return body(Turned<T>(p, call, does));
    return body(rows);
}

template <class T>
constexpr PoolKernel forward{[](const PoolProblem& p, const PoolCall& call) {
                                 return with_worker<T>(p, call, [](const auto& worker) { return worker.workspace_bytes(); });
                             },
                             [](const PoolProblem& p, const PoolCall& call) {
                                 with_worker<T>(p, call, [](const auto& worker) { worker.run(); });
                                 return true;
                             }};

PoolKernel any_forward(const PoolProblem& p, const PoolCall& call) {
    if (call.indices.data) return pool_indices_kernel();
    return p.dtype == Dtype::float32 ? forward<float> : forward<double>;
}

}  // namespace

const Pool& pool() {
    static const Pool all{{[](const PoolProblem& p, const PoolCall& call) { return any_forward(p, call).workspace_bytes(p, call); },
                           [](const PoolProblem& p, const PoolCall& call) { return any_forward(p, call).run(p, call); }},
                          pool_gradient_kernel(),
                          pool_add_kernel(),
                          pool_put_kernel()};
    return all;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
