//! What the rest of the crate, and WebGPU's default limits, demand of a kernel's text.

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, StorageAccess, TypeInner};

use crate::kernels::{Kernel, Tuning};
use crate::params::Field;
use crate::pipelines::PARAMS_BYTES;

/// WebGPU's default limits.
const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_WORKGROUP_BYTES: u32 = 16 << 10;
const MAX_INVOCATIONS: u32 = 256;

/// What one kernel must keep to.
pub(super) struct Contract {
    /// As [`Kernel::bindings`].
    pub(super) bindings: &'static str,
    /// As [`Kernel::params`].
    pub(super) params: &'static [Field],
    /// Whether it may use subgroup operations.
    pub(super) subgroups: bool,
}

/// A kernel that keeps its contract.
pub(super) struct Checked {
    pub(super) module: Module,
    pub(super) info: ModuleInfo,
    pub(super) workgroup_bytes: u32,
}

impl Contract {
    pub(super) fn of(kernel: &Kernel, tuning: Tuning) -> Self {
        Self { bindings: kernel.bindings(), params: kernel.params(), subgroups: tuning.subgroups }
    }

    /// Parses, validates, and holds the text against this contract.
    pub(super) fn check(&self, wgsl: &str) -> Result<Checked, String> {
        let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| error.emit_to_string(wgsl))?;
        let capabilities = if self.subgroups { Capabilities::SUBGROUP } else { Capabilities::empty() };
        let info = Validator::new(ValidationFlags::all(), capabilities)
            .validate(&module)
            .map_err(|error| error.emit_to_string(wgsl))?;
        self.check_bindings(&module)?;
        let workgroup_bytes = check_workgroup(&module)?;
        Ok(Checked { module, info, workgroup_bytes })
    }

    /// Storage buffers in order, each read or written as said; then the parameters.
    fn check_bindings(&self, module: &Module) -> Result<(), String> {
        let num_storage = self.bindings.len();
        if num_storage > MAX_STORAGE_BUFFERS {
            return Err(format!("{num_storage} storage buffers, at most {MAX_STORAGE_BUFFERS} are sure to be there"));
        }
        let mut found = vec![None; num_storage + 1];
        for (_, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            let name = variable.name.clone().unwrap_or_default();
            let place = found.get_mut(binding.binding as usize).filter(|_| binding.group == 0);
            let place = place.ok_or(format!("{name} has a binding that the layout lacks: {binding:?}"))?;
            *place = Some(match variable.space {
                AddressSpace::Storage { access: StorageAccess::LOAD } => 'r',
                AddressSpace::Storage { .. } => 'w',
                AddressSpace::Uniform => {
                    self.check_params(module, variable.ty)?;
                    'u'
                }
                space => return Err(format!("{name} is bound in {space:?}")),
            });
        }
        let found: String = found.iter().map(|access| access.unwrap_or('-')).collect();
        let expected = format!("{}u", self.bindings);
        if found == expected { Ok(()) } else { Err(format!("bindings {found}, the layout has {expected}")) }
    }

    fn check_params(&self, module: &Module, ty: naga::Handle<naga::Type>) -> Result<(), String> {
        let TypeInner::Struct { members, span } = &module.types[ty].inner else {
            return Err("the parameters are no struct".into());
        };
        let found: Vec<_> = members
            .iter()
            .map(|member| {
                let ty = match &module.types[member.ty].inner {
                    TypeInner::Scalar(naga::Scalar { kind: ScalarKind::Uint, width: 4 }) => "u32",
                    TypeInner::Scalar(naga::Scalar { kind: ScalarKind::Float, width: 4 }) => "f32",
                    _ => "neither u32 nor f32",
                };
                (member.name.as_deref().unwrap_or_default(), ty)
            })
            .collect();
        if found != self.params {
            return Err(format!("the kernel's parameters are {found:?}, the host's are {:?}", self.params));
        }
        let host_bytes = 4 * self.params.len();
        if *span as usize != host_bytes || host_bytes > PARAMS_BYTES {
            return Err(format!("parameters take {span} bytes, the host's {host_bytes}, the binding {PARAMS_BYTES}"));
        }
        Ok(())
    }
}

/// Bytes of workgroup memory.
fn check_workgroup(module: &Module) -> Result<u32, String> {
    let [entry] = module.entry_points.as_slice() else {
        return Err(format!("{} entry points, one is wanted", module.entry_points.len()));
    };
    let invocations: u32 = entry.workgroup_size.iter().product();
    if entry.name != "main" || entry.stage != naga::ShaderStage::Compute || invocations > MAX_INVOCATIONS {
        return Err(format!("{} of {:?} has {invocations} invocations", entry.name, entry.stage));
    }
    let context = module.to_ctx();
    let bytes = module
        .global_variables
        .iter()
        .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
        .map(|(_, variable)| module.types[variable.ty].inner.size(context).next_multiple_of(16))
        .sum();
    if bytes > MAX_WORKGROUP_BYTES {
        return Err(format!("{bytes} bytes of workgroup memory, {MAX_WORKGROUP_BYTES} are sure to be there"));
    }
    Ok(bytes)
}
