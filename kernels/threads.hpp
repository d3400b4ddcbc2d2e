// The one thread pool of the process: the ParallelFor of abi.hpp. See threads.cpp for the protocol.
#pragma once
#include "abi.hpp"

namespace fastconv {

// Runs body(context, part) for part = 0 .. parts-1, each exactly once, on at most `parts` threads, and returns when all
// are done. Part 0 runs on the caller at once. Nested or concurrent with another region: all parts run on the caller.
void parallel_for(int64_t parts, Body body, void* context);

int worker_count();    // threads the pool has started in this process, the callers not counted
int available_cpus();  // that this process may use: affinity, and the limit
void limit_cpus(int count);  // a container's share, which Python knows; 0: none

}  // namespace fastconv
