// Steps of optimisers: every array is read and written once. Floor: the bytes, five for each of a parameter by sgd with momentum, seven
// by adam.
#pragma once
#include "pointwise.hpp"
#include "square_root.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
class Updating {
   public:
    static constexpr int64_t piece = 4096;  // elements, whole vectors of them: which ones are the last, alone, does not depend on threads
    explicit Updating(const Update& of) : u(of) {}

    void items(int64_t begin, int64_t end) const {
        constexpr int64_t L = lanes<T>;
        const int64_t last = std::min(end * piece, u.count);
        int64_t i = begin * piece;
        for (; i + L <= last; i += L) step(i, [](const T* p) { return load(p); }, [](T* p, Vec<T> v) { store(p, v); });
        if (i < last) {
            const int64_t n = last - i;
            step(i, [n](const T* p) { return load_first(p, n); }, [n](T* p, Vec<T> v) { store_first(p, v, n); });
        }
    }

   private:
    template <class Read, class Write>
    FASTCONV_INLINE void step(int64_t i, const Read& read, const Write& write) const {
        T* const to = static_cast<T*>(u.values) + i;
        const Vec<T> g = read(static_cast<const T*>(u.gradient) + i);
        write(to, u.rule == Update::sgd ? sgd(i, read(to), g, read, write) : adam(i, read(to), g, read, write));
    }
    template <class Read, class Write>
    FASTCONV_INLINE Vec<T> sgd(int64_t i, Vec<T> value, Vec<T> g, const Read& read, const Write& write) const {
        if (u.decay != 0) g += value * T(u.decay);
        if (u.first) {
            T* const at = static_cast<T*>(u.first) + i;
            const Vec<T> velocity = read(at) * T(u.momentum) + g * T(u.more);
            write(at, velocity);
            g = u.nesterov ? g + velocity * T(u.momentum) : velocity;
        }
        return value - g * T(u.rate);
    }
    template <class Read, class Write>
    FASTCONV_INLINE Vec<T> adam(int64_t i, Vec<T> value, Vec<T> g, const Read& read, const Write& write) const {
        T *const first = static_cast<T*>(u.first) + i, *const second = static_cast<T*>(u.second) + i;
        if (u.decay != 0) g += value * T(u.decay);
        value *= T(u.shrink);
        Vec<T> mean = read(first), square = read(second);
        mean += (g - mean) * T(1 - u.momentum);
        square = square * T(u.more) + g * g * T(1 - u.more);
        write(first, mean), write(second, square);
        return value - mean / (square_root<T>(square) / T(u.correction) + T(u.epsilon)) * T(u.rate);
    }

    const Update& u;
};

template <class T>
void share_update(const Update& u, const Team& team) {
    if (u.count == 0) return;
    const Updating<T> updating(u);
    const int arrays = u.rule == Update::adam ? 7 : u.first ? 5 : 3;
    const Crew crew = crew_of(team, double(u.count) * sizeof(T) * arrays, false);
    crew.share((u.count + updating.piece - 1) / updating.piece, [&](int64_t, const auto& each) {
        each([&](int64_t begin, int64_t end) { updating.items(begin, end); });
    });
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
