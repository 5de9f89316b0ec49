//! The two-phase protocol: a first function checks and plans, a second one queues what was planned, once.

use std::ops::Range;
use std::sync::Arc;

use crate::abi::status;
use crate::machine::{Failure, Kind, Machine, Outcome};
use crate::stream::Op;
use crate::tensor::{DataType, Descriptor, View};

/// Every workspace begins at a multiple of this many bytes.
const ALIGNMENT: u64 = 32;

/// What an operator does when its turn comes, each time; what it answers is what was wrong with the numbers it met.
pub(crate) type Work = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What a first function planned.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) name: &'static str,
    workspace_bytes: u64,
    /// Descriptors that must still be there when it is queued.
    descriptors: Vec<u64>,
    /// Memory that must still be there when it runs.
    ranges: Vec<Range<u64>>,
    work: Arc<Work>,
    /// Why it cannot be queued more than once, if so.
    single_use: Option<&'static str>,
    /// Stays when it is queued, until it is destroyed.
    pub(crate) is_repeatable: bool,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A queued operator.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(crate) name: &'static str,
    pub(crate) ranges: Vec<Range<u64>>,
    pub(crate) work: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An operator's first function while it looks at its arguments.
pub(crate) struct Call<'a> {
    machine: &'a mut Machine,
    descriptors: Vec<u64>,
    inputs: Vec<Range<u64>>,
    outputs: Vec<Range<u64>>,
    workspace_bytes: u64,
    single_use: Option<&'static str>,
}

/// What an operator does not take.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(status::INVALID, message)
}

/// Sizes that an operator does not run with.
pub(crate) fn wrong_size(message: impl Into<String>) -> Failure {
    Failure::new(status::TILING, message)
}

/// Refuses unless a condition holds.
pub(crate) fn require(holds: bool, message: impl FnOnce() -> String) -> Outcome<()> {
    if holds { Ok(()) } else { Err(invalid(message())) }
}

impl Call<'_> {
    fn descriptor(&mut self, what: &str, handle: u64) -> Outcome<Descriptor> {
        if handle == 0 {
            return Err(Failure::new(status::NULLPTR, format!("{what} is null")));
        }
        let found = self.machine.descriptors.get(&handle).cloned();
        self.descriptors.push(handle);
        found.ok_or_else(|| invalid(format!("{what} {handle:#x} is no live descriptor")))
    }

    fn view(&mut self, what: &str, handle: u64) -> Outcome<View> {
        let view = match self.descriptor(what, handle)? {
            Descriptor::Tensor(view) => view,
            other => return Err(invalid(format!("{what} is {}, not a tensor", other.kind()))),
        };
        require(view.num_elements() > 0, || format!("{what} {:?} is empty", view.dims))?;
        require(view.address.is_multiple_of(ALIGNMENT), || {
            format!("{what} begins at {:#x}, no multiple of {ALIGNMENT}", view.address)
        })?;
        let storage: usize = view.storage.iter().product();
        require(view.extent() <= storage, || {
            format!("{what} reaches element {} of a storage of {storage}", view.extent())
        })?;
        let memory = &self.machine.context()?.memory;
        require(memory.holder(view.range()).is_some(), || {
            format!("{what} is not in one live allocation: {}", memory.describe(view.range().start))
        })?;
        Ok(view)
    }

    fn typed(&mut self, what: &str, handle: u64, takes: &[DataType]) -> Outcome<View> {
        let view = self.view(what, handle)?;
        require(takes.contains(&view.data_type), || format!("{what} is {:?}, taken are {takes:?}", view.data_type))?;
        Ok(view)
    }

    fn checked(&mut self, what: &str, handle: u64, takes: &[DataType]) -> Outcome<View> {
        let view = self.typed(what, handle, takes)?;
        require(!view.is_nz, || format!("{what} is in NZ"))?;
        Ok(view)
    }

    /// A weight that must be in NZ.
    pub(crate) fn nz_input(&mut self, what: &str, handle: u64, takes: &[DataType]) -> Outcome<View> {
        let view = self.typed(what, handle, takes)?;
        require(view.is_nz, || format!("{what} is not in NZ"))?;
        self.inputs.push(view.range());
        Ok(view)
    }

    /// A weight, in NZ or not.
    pub(crate) fn weight(&mut self, what: &str, handle: u64, takes: &[DataType]) -> Outcome<View> {
        let view = self.typed(what, handle, takes)?;
        self.inputs.push(view.range());
        Ok(view)
    }

    /// An input of one of the types that are taken.
    pub(crate) fn input(&mut self, what: &str, handle: u64, takes: &[DataType]) -> Outcome<View> {
        let view = self.checked(what, handle, takes)?;
        self.inputs.push(view.range());
        Ok(view)
    }

    /// An input that may be left out.
    pub(crate) fn optional_input(&mut self, what: &str, handle: u64, takes: &[DataType]) -> Outcome<Option<View>> {
        if handle == 0 { Ok(None) } else { self.input(what, handle, takes).map(Some) }
    }

    /// An output; it may not lie over an input.
    pub(crate) fn output(&mut self, what: &str, handle: u64, takes: &[DataType]) -> Outcome<View> {
        let view = self.checked(what, handle, takes)?;
        self.outputs.push(view.range());
        Ok(view)
    }

    /// What is read and written in its place.
    pub(crate) fn in_place(&mut self, what: &str, handle: u64, takes: &[DataType]) -> Outcome<View> {
        self.output(what, handle, takes)
    }

    /// An output that must be what [`Call::in_place`] gave, whatever its descriptor.
    pub(crate) fn same_place(&mut self, what: &str, handle: u64, place: &View) -> Outcome<View> {
        let view = self.checked(what, handle, &[place.data_type])?;
        require(view == *place, || format!("{what} at {:x?} is not in the place of its input", view.range()))?;
        Ok(view)
    }

    /// The one tensor of a list.
    pub(crate) fn only(&mut self, what: &str, handle: u64) -> Outcome<u64> {
        match self.descriptor(what, handle)? {
            Descriptor::TensorList(tensors) if tensors.len() == 1 => Ok(tensors[0]),
            Descriptor::TensorList(tensors) => Err(invalid(format!("{what} has {} tensors, not one", tensors.len()))),
            other => Err(invalid(format!("{what} is {}, not a list", other.kind()))),
        }
    }

    /// All tensors of a list.
    pub(crate) fn list(&mut self, what: &str, handle: u64) -> Outcome<Vec<u64>> {
        match self.descriptor(what, handle)? {
            Descriptor::TensorList(tensors) => Ok(tensors),
            other => Err(invalid(format!("{what} is {}, not a list", other.kind()))),
        }
    }

    pub(crate) fn integers(&mut self, what: &str, handle: u64) -> Outcome<Vec<i64>> {
        match self.descriptor(what, handle)? {
            Descriptor::IntArray(values) => Ok(values),
            other => Err(invalid(format!("{what} is {}, not an array", other.kind()))),
        }
    }

    pub(crate) fn scalar(&mut self, what: &str, handle: u64) -> Outcome<f64> {
        match self.descriptor(what, handle)? {
            Descriptor::Scalar(value) => {
                self.single_use = Some("it has a scalar, which it may copy to the device itself");
                Ok(value)
            }
            other => Err(invalid(format!("{what} is {}, not a scalar", other.kind()))),
        }
    }

    /// Asks for workspace.
    pub(crate) fn needs_workspace(&mut self, num_bytes: usize) {
        self.workspace_bytes = (num_bytes as u64).next_multiple_of(ALIGNMENT);
    }

    /// Arguments that nothing here models, and that must be null.
    pub(crate) fn is_null(&self, handles: &[(&str, u64)]) -> Outcome<()> {
        match handles.iter().find(|(_, handle)| *handle != 0) {
            None => Ok(()),
            Some((what, _)) => Err(invalid(format!("{what} is given, which is not modelled or not taken"))),
        }
    }

    fn check_overlap(&self) -> Outcome<()> {
        for (i, output) in self.outputs.iter().enumerate() {
            let others = self.inputs.iter().chain(&self.outputs[..i]);
            for other in others {
                require(output.end <= other.start || other.end <= output.start, || {
                    format!("an output at {output:x?} lies over {other:x?}")
                })?;
            }
        }
        Ok(())
    }
}

/// Runs a first function.
pub(crate) fn plan(
    machine: &mut Machine,
    name: &'static str,
    body: impl FnOnce(&mut Call<'_>) -> Outcome<Work>,
) -> Outcome<(u64, u64)> {
    machine.context()?;
    let mut call = Call {
        machine: &mut *machine,
        descriptors: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        workspace_bytes: 0,
        single_use: None,
    };
    let work = body(&mut call)?;
    call.check_overlap()?;
    let Call { descriptors, inputs, outputs, workspace_bytes, single_use, .. } = call;
    let ranges = inputs.into_iter().chain(outputs).collect();
    let handle = machine.new_handle(Kind::Executor);
    let work = Arc::new(work);
    let executor = Executor { name, workspace_bytes, descriptors, ranges, work, single_use, is_repeatable: false };
    machine.executors.insert(handle, executor);
    machine.last_planned = handle;
    machine.record.planned += 1;
    Ok((workspace_bytes, handle))
}

/// Lets an executor be queued again and again. It must have been planned just now.
pub(crate) fn make_repeatable(machine: &mut Machine, handle: u64) -> Outcome<()> {
    let is_last = machine.last_planned == handle;
    let Some(executor) = machine.executors.get_mut(&handle) else {
        let message = format!("{handle:#x} is no executor, or one that was used already");
        return Err(Failure::new(status::NULL_EXECUTOR, message));
    };
    require(is_last, || format!("another operator was planned after {}", executor.name))?;
    if let Some(reason) = executor.single_use {
        return Err(invalid(format!("{} cannot be repeated: {reason}", executor.name)));
    }
    executor.is_repeatable = true;
    Ok(())
}

/// Runs a second function: the executor is used up, whatever comes of it, unless it is repeatable.
pub(crate) fn launch(
    machine: &mut Machine,
    name: &'static str,
    (workspace, workspace_bytes): (u64, u64),
    executor: u64,
    stream: u64,
) -> Outcome<()> {
    let Some(planned) = machine.executors.get(&executor) else {
        let message = format!("{executor:#x} is no executor, or one that was used already");
        return Err(Failure::new(status::NULL_EXECUTOR, message));
    };
    let (planned, is_repeatable) = (planned.clone(), planned.is_repeatable);
    if !is_repeatable {
        machine.executors.remove(&executor);
    }
    machine.context()?.stream(stream)?;
    require(planned.name == name, || format!("the executor was planned by {}", planned.name))?;
    if let Some(gone) = planned.descriptors.iter().find(|handle| !machine.descriptors.contains_key(handle)) {
        return Err(invalid(format!("descriptor {gone:#x} was destroyed between the two calls")));
    }
    let mut ranges = planned.ranges;
    let mut poison = None;
    if planned.workspace_bytes > 0 {
        require(workspace_bytes >= planned.workspace_bytes, || {
            format!("a workspace of {workspace_bytes} bytes, planned were {}", planned.workspace_bytes)
        })?;
        require(workspace.is_multiple_of(ALIGNMENT), || format!("a workspace at {workspace:#x}"))?;
        let range = workspace..workspace + planned.workspace_bytes;
        let memory = &machine.context()?.memory;
        require(memory.holder(range.clone()).is_some(), || {
            format!("the workspace is not in one live allocation: {}", memory.describe(workspace))
        })?;
        require(ranges.iter().all(|used| used.end <= range.start || range.end <= used.start), || {
            "the workspace lies over a tensor".into()
        })?;
        poison = Some(range.clone());
        ranges.push(range);
    }
    let work = Arc::new(move || {
        if let Some(range) = &poison {
            // Whoever keeps something in the workspace loses it.
            emulator_common::memory::fill(range.start, 0xff, (range.end - range.start) as usize);
        }
        (planned.work)()
    });
    machine.context()?.stream(stream)?.push(Op::Launch(Launch { name, ranges, work }))?;
    machine.record.queued += 1;
    Ok(())
}
