// Maximum or minimum, and where it is: in every window, row by row and tap by tap, so that of equals the first is kept, and of NaNs the
// last.
//
// Vectors run over the channels of a pixel, or over outputs with stride 1 or 2, whose inputs are copied to a row with padding first; the
// rows of a window one after the other, while value and place so far wait in L1. Places are integers as wide as values. All else comes
// one by one. Bottleneck: about six instructions per tap and vector.
#include "pool.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

template <class T, class Op>
class Indices {
    using Int = typename VectorOf<T>::Int;
    using Places = typename VectorOf<T>::mask;

   public:
    Indices(const PoolProblem& problem, const PoolCall& c)
        : p_(problem), call_(c), in_(c.input), out_(c.output), places_(c.indices) {
        const PoolAxis& w = p_.axis[2];
        const int64_t rows = p_.batch * p_.axis[0].output * p_.axis[1].output;
        const bool narrow = p_.axis[0].input * p_.axis[1].input * w.input <= std::numeric_limits<Int>::max();
        pixels_ = narrow && channels_side_by_side(p_, in_, out_) && places_.channel == 1;
        unit_ = pixels_ ? channels_at_a_time<T>(p_, rows, c.threads) : 1;
        blocks_ = pixels_ ? ceil_div(p_.channels, unit_) : 1;
        const int64_t span = (w.output - 1) * w.stride + (w.taps - 1) * w.dilation + 1;
        slides_ = narrow && !pixels_ && w.regular && w.stride <= 2 && in_.space[2] == 1 && span <= longest;
        pitch_ = slides_ ? round_up(span + 4 * L, L) : 0;
        length_ = slides_ ? round_up(w.output, L) : 0;
    }

    size_t workspace_bytes() const { return crew().bytes(); }

    void run() const {
        const Crew crew = this->crew();
        const Grid<5> items = this->items();
        crew.share(items.count(), [&](int64_t part, const auto& each) {
            T* const row = reinterpret_cast<T*>(crew.own(part));
            each([&](int64_t begin, int64_t end) { items.each(begin, end, [&](const auto& at) { line(at, row); }); });
        });
    }

   private:
    static constexpr int64_t L = lanes<T>, longest = 1 << 20;
    struct Window {  // of an output row: where its first row begins in the input, and its place there
        const T* from;
        int64_t place, depths, heights;
    };

    Grid<5> items() const {
        return {{p_.batch, pixels_ ? 1 : p_.channels, p_.axis[0].output, p_.axis[1].output, blocks_}};
    }
    Crew crew() const {
        const size_t own = size_t(round_up((pitch_ + length_) * int64_t(sizeof(T)) + length_ * int64_t(sizeof(Int)), 64));
        return pool_crew(p_, call_, items().count(), own, 0);
    }

    void line(const int64_t (&at)[5], T* row) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        const int64_t od = at[2], oh = at[3], channel = at[1] + at[4] * unit_;
        const T* from = static_cast<const T*>(in_.data) + at[0] * in_.batch + channel * in_.channel;
        const Window window{from + d.first[od] * in_.space[0] + h.first[oh] * in_.space[1], (d.first[od] * h.input + h.first[oh]) * w.input,
                            d.count[od], h.count[oh]};
        T* to = static_cast<T*>(out_.data) + at[0] * out_.batch + channel * out_.channel + od * out_.space[0] + oh * out_.space[1];
        int64_t* places = static_cast<int64_t*>(places_.data) + at[0] * places_.batch + channel * places_.channel + od * places_.space[0] +
                          oh * places_.space[1];
        if (slides_) return w.stride == 1 ? slide<1>(window, row, to, places) : slide<2>(window, row, to, places);
        for (int64_t o = 0; o < w.output; ++o, to += out_.space[2], places += places_.space[2]) {
            if (!pixels_) one(window, o, to, places);
            else pixel(window, o, std::min(unit_, p_.channels - channel), to, places);
        }
    }

    // body(row, place) of all rows of a window
    template <class Body>
    FASTCONV_INLINE void rows(const Window& of, const Body& body) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1];
        for (int64_t i = 0; i < of.depths; ++i)
            for (int64_t j = 0; j < of.heights; ++j)
                body(of.from + i * d.dilation * in_.space[0] + j * h.dilation * in_.space[1],
                     of.place + (i * d.dilation * h.input + j * h.dilation) * p_.axis[2].input);
    }

    void one(const Window& of, int64_t o, T* to, int64_t* where) const {
        const PoolAxis& w = p_.axis[2];
        T best = of.from[w.first[o] * in_.space[2]];
        int64_t found = of.place + w.first[o];
        rows(of, [&](const T* row, int64_t place) {
            for (int64_t j = 0, at = w.first[o]; j < w.count[o]; ++j, at += w.dilation) {
                const T x = row[at * in_.space[2]];
                if (Op::beats(x, best)) best = x, found = place + at;
            }
        });
        *to = best, *where = found;
    }

    static void take(Vec<T>& best, Places& found, Vec<T> x, Places place) {
        const Places beaten = Op::beats(x, best);
        best = beaten ? x : best, found = beaten ? place : found;
    }
    static Places all(int64_t place) { return Places{} + Int(place); }
    static void put(int64_t* to, int64_t step, Places places, int64_t n) {
        Int each[L];
        std::memcpy(each, &places, sizeof each);
        if (n == L && step == 1)
            for (int64_t l = 0; l < L; ++l) to[l] = each[l];
        else
            for (int64_t l = 0; l < n; ++l) to[l * step] = each[l];
    }

    // All channels of an output.
    void pixel(const Window& of, int64_t o, int64_t channels, T* to, int64_t* where) const {
        const PoolAxis& w = p_.axis[2];
        for (int64_t c = 0; c < channels; c += L) {
            const int64_t n = std::min(L, channels - c);
            Vec<T> best = broadcast(Op::identity());
            Places found = all(of.place + w.first[o]);
            const auto each = [&](const auto& read) __attribute__((always_inline)) {
                rows(of, [&](const T* row, int64_t place) __attribute__((always_inline)) {
                    for (int64_t j = 0, at = w.first[o]; j < w.count[o]; ++j, at += w.dilation)
                        take(best, found, read(row + at * in_.space[2] + c), all(place + at));
                });
            };
            if (n == L) each([](const T* p) __attribute__((always_inline)) { return load(p); });
            else each([n](const T* p) __attribute__((always_inline)) { return load_first(p, n); });
            if (n == L) store(to + c, best);
            else store_first(to + c, best, n);
            put(where + c, 1, found, n);
        }
    }

    // All outputs of a row with stride S. memory: a row of inputs, values and places of outputs.
    template <int S>
    void slide(const Window& of, T* memory, T* to, int64_t* where) const {
        const PoolAxis& w = p_.axis[2];
        T* const values = memory + pitch_;
        Int* const places = reinterpret_cast<Int*>(values + length_);
        std::fill_n(values, length_, Op::identity());
        for (int64_t o = 0; o < w.output; ++o) places[o] = Int(of.place + w.first[o]);
        const int64_t last = w.begin + (w.output - 1) * w.stride + (w.taps - 1) * w.dilation + 1;
        const int64_t begin = std::max<int64_t>(w.begin, 0), count = std::min(last, w.input) - begin;
        std::fill_n(memory, begin - w.begin, Op::identity());
        std::fill_n(memory + begin - w.begin + count, last - begin - count, Op::identity());
        rows(of, [&](const T* row, int64_t place) {
            copy(memory + begin - w.begin, row + begin, count);
            for (int64_t o = 0; o < w.output; o += L) slide_vector<S>(memory, o, place, values + o, places + o);
        });
        for (int64_t o = 0; o < w.output; o += L) {
            const int64_t n = std::min(L, w.output - o);
            if (out_.space[2] == 1) {
                if (n == L) store(to + o, load(values + o));
                else store_first(to + o, load(values + o), n);
            } else {
                spread(to + o * out_.space[2], out_.space[2], values + o, n);
            }
            put(where + o * places_.space[2], places_.space[2], *reinterpret_cast<const Unaligned*>(places + o), n);
        }
    }
    typedef Int Unaligned __attribute__((vector_size(vector_bytes), aligned(alignof(Int)), may_alias));

    template <int S>
    FASTCONV_INLINE void slide_vector(const T* row, int64_t o, int64_t place, T* values, Int* places) const {
        const PoolAxis& w = p_.axis[2];
        Vec<T> best = load(values);
        Places found = *reinterpret_cast<const Unaligned*>(places), at = steps(S) + Int(place + w.begin + o * S);
        const T* p = row + o * S;
        for (int64_t j = 0; j < w.taps; ++j, p += w.dilation, at += Int(w.dilation)) {
            if constexpr (S == 1) take(best, found, load(p), at);
            else take(best, found, every_other<T, 0>(load(p), load(p + L)), at);
        }
        store(values, best);
        *reinterpret_cast<Unaligned*>(places) = found;
    }
    static Places steps(int step) {
        Places at;
        for (int l = 0; l < lanes<T>; ++l) at[l] = Int(l * step);
        return at;
    }

    PoolProblem p_;
    PoolCall call_;
    View in_, out_, places_;
    bool pixels_, slides_;  // vectors run over channels, or over outputs of a row
    int64_t unit_, blocks_, pitch_, length_;
};

template <class T, class Op>
constexpr PoolKernel indices{[](const PoolProblem& p, const PoolCall& call) { return Indices<T, Op>(p, call).workspace_bytes(); },
                             [](const PoolProblem& p, const PoolCall& call) {
                                 Indices<T, Op>(p, call).run();
                                 return true;
                             }};

template <class T>
PoolKernel indices_of(const PoolProblem& p) {
    return p.operation == Pooling::max ? indices<T, Largest<T>> : indices<T, Smallest<T>>;
}
PoolKernel any_indices(const PoolProblem& p) { return p.dtype == Dtype::float32 ? indices_of<float>(p) : indices_of<double>(p); }

}  // namespace

const PoolKernel& pool_indices_kernel() {
    static const PoolKernel kernel{[](const PoolProblem& p, const PoolCall& call) { return any_indices(p).workspace_bytes(p, call); },
                                   [](const PoolProblem& p, const PoolCall& call) { return any_indices(p).run(p, call); }};
    return kernel;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
