// Two kernels that differ in everything a code object tells: parameters, local data share, size of blocks.
#define KERNEL extern "C" __attribute__((global))

KERNEL void scale(const float* x, float* y, unsigned num, float factor) {
  static __attribute__((shared)) float tile[256];
  const unsigned thread = __builtin_amdgcn_workitem_id_x();
  const unsigned i = __builtin_amdgcn_workgroup_id_x() * __builtin_amdgcn_workgroup_size_x() + thread;
  tile[thread] = x[i];
  __builtin_amdgcn_s_barrier();
  if (i < num) y[i] = tile[thread ^ 1] * factor;
}

KERNEL __attribute__((amdgpu_flat_work_group_size(1, 96))) void zero(unsigned short* y) {
  y[__builtin_amdgcn_workitem_id_x()] = 0;
}
