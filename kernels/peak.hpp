// The loop that the machine's peak is measured with.
#pragma once
#include "abi.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

double fma_loop(Dtype dtype, int64_t repeats);

}  // namespace FASTCONV_ISA
}  // namespace fastconv
