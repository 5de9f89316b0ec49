// Two kernels that differ in everything an image tells: parameters, shared memory, launch bounds.
extern "C" __global__ void scale(const float* x, float* y, unsigned num, float factor) {
    __shared__ float tile[256];
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x] = x[i];
    __syncthreads();
    if (i < num) y[i] = tile[threadIdx.x ^ 1] * factor;
}

extern "C" __global__ void __launch_bounds__(96) zero(unsigned short* y) { y[threadIdx.x] = 0; }
