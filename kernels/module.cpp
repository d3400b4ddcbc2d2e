// The extension module of one ISA: its only attribute, `capsule`, leads to a Module (abi.hpp). setup.py names the ISA
// and lists the algorithms: -DFASTCONV_ALGORITHMS="A(gemm) A(direct)", each of them a <name>.cpp that defines
// `const Algorithm& <name>_algorithm()`.
#include <Python.h>

#include "abi.hpp"
#include "peak.hpp"

#define FASTCONV_TEXT_OF(name) #name
#define FASTCONV_TEXT(macro) FASTCONV_TEXT_OF(macro)
#define FASTCONV_JOIN_OF(a, b) a##b
#define FASTCONV_JOIN(a, b) FASTCONV_JOIN_OF(a, b)

namespace fastconv {
namespace FASTCONV_ISA {

#define A(name) const Algorithm& name##_algorithm();
FASTCONV_ALGORITHMS
#undef A
const Pool& pool();
const Pointwise& pointwise();

namespace {

#if defined(__AVX512F__)
constexpr int float32_lanes = 16;
#elif defined(__AVX__)
constexpr int float32_lanes = 8;
#else
constexpr int float32_lanes = 4;
#endif

const Module& this_module() {
#define A(name) name##_algorithm(),
    static const Algorithm algorithms[] = {FASTCONV_ALGORITHMS};
#undef A
    static const Module module = {abi_version, FASTCONV_TEXT(FASTCONV_ISA), float32_lanes,
                                  static_cast<int32_t>(sizeof algorithms / sizeof algorithms[0]), algorithms, fma_loop, &pool(),
                                  &pointwise()};
    return module;
}

int fill_module(PyObject* module) {
    PyObject* capsule = PyCapsule_New(const_cast<Module*>(&this_module()), "fastconv.Module", nullptr);
    if (!capsule) return -1;
    const int failed = PyModule_AddObjectRef(module, "capsule", capsule);
    Py_DECREF(capsule);
    return failed;
}

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(fill_module)},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},  // constant data only
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "fastconv._" FASTCONV_TEXT(FASTCONV_ISA),
                          "Convolution kernels of one instruction set; fastconv._runtime runs them.",
                          0,
                          nullptr,
                          slots,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace
}  // namespace FASTCONV_ISA
}  // namespace fastconv

PyMODINIT_FUNC FASTCONV_JOIN(PyInit__, FASTCONV_ISA)() {
    return PyModuleDef_Init(&fastconv::FASTCONV_ISA::definition);
}
