// Pooling: who does what. Forward by rows (pool_forward.hpp) or by planes (pool_planes.hpp), with places in pool_indices.cpp; gradients in
// pool_gradient.cpp.
#include "pool_planes.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

// body(worker) with the one for this call
template <class T, class Op, class Body>
auto with_worker(const PoolProblem& p, const PoolCall& call, const Body& body) {
    if (Whole<T, Op>::suits(p, call)) return body(Whole<T, Op>(p, call));
    if (WholePixels<T, Op>::suits(p, call)) return body(WholePixels<T, Op>(p, call));
    if (Turned<T, Op>::suits(p, call)) return body(Turned<T, Op>(p, call));
    return body(Forward<T, Op>(p, call));
}

template <class T, class Op>
constexpr PoolKernel forward{[](const PoolProblem& p, const PoolCall& call) {
                                 return with_worker<T, Op>(p, call, [](const auto& worker) { return worker.workspace_bytes(); });
                             },
                             [](const PoolProblem& p, const PoolCall& call) {
                                 with_worker<T, Op>(p, call, [](const auto& worker) { worker.run(); });
                                 return true;
                             }};

template <class T>
PoolKernel forward_of(const PoolProblem& p, const PoolCall& call) {
    if (call.indices.data) return pool_indices_kernel();
    switch (p.operation) {
        case Pooling::max: return forward<T, Largest<T>>;
        case Pooling::min: return forward<T, Smallest<T>>;
        case Pooling::average: return forward<T, Average<T>>;
        case Pooling::lp: break;
    }
    return p.norm == 1 ? forward<T, Norm<T, 1>> : p.norm == 2 ? forward<T, Norm<T, 2>> : forward<T, Norm<T, 0>>;
}

PoolKernel any_forward(const PoolProblem& p, const PoolCall& call) {
    return p.dtype == Dtype::float32 ? forward_of<float>(p, call) : forward_of<double>(p, call);
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
