//! Collectives: sums to which all ranks of a group come, each when its stream's turn comes. The last one brings the result
//! to all of them.

use std::collections::BTreeMap;
use std::thread::ThreadId;

use emulator_common::collective::{Call, disagreement, sum};
use emulator_common::exit::say;

use crate::abi::{hccl, status};
use crate::machine::{BLOCKED, Failure, Kind, Machine, Outcome, current, set_current};
use crate::stream::{Op, Progress};

/// Who speaks when another thread's device fails.
const NAME: &str = "ascend-emulator";

/// A sum in a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Collective {
    pub(crate) communicator: u64,
    pub(crate) call: Call,
}

/// A rank's part in the collective that its group is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// Its stream has come to it.
    Waits(Call),
    /// The result is there.
    Done,
}

/// A communicator: one rank of a group.
#[derive(Debug, Clone)]
struct Member {
    device: u32,
    is_live: bool,
    /// The thread that last queued a collective of it.
    thread: Option<ThreadId>,
    arrival: Option<Arrival>,
    num_done: u64,
}

/// Communicators that were made together.
#[derive(Debug, Default)]
struct Group {
    members: Vec<Member>,
    /// Why nothing of it can be right any more.
    broken: Option<String>,
    /// What it answers about collectives that have run.
    async_error: i32,
}

/// All groups, and where in them a communicator is. Both stay: handles are never used twice.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: Vec<Group>,
    places: BTreeMap<u64, (usize, usize)>,
    /// Set while one device's stream goes on for the sake of another's.
    is_advancing: bool,
}

impl Groups {
    /// Index of its group, and its rank.
    fn place(&self, communicator: u64) -> Outcome<(usize, usize)> {
        let unknown = || Failure::new(hccl::PTR, format!("{communicator:#x} is no communicator"));
        self.places.get(&communicator).copied().ok_or_else(unknown)
    }

    /// A communicator that is alive.
    fn member(&mut self, communicator: u64) -> Outcome<&mut Member> {
        let (group, rank) = self.place(communicator)?;
        let member = &mut self.groups[group].members[rank];
        if member.is_live {
            return Ok(member);
        }
        Err(Failure::new(hccl::PTR, format!("communicator {communicator:#x} was destroyed")))
    }

    /// True where looking again will show something new.
    fn is_settled(&self, communicator: u64) -> bool {
        let Ok((group, rank)) = self.place(communicator) else { return true };
        let Group { members, broken, .. } = &self.groups[group];
        broken.is_some() || members[rank].arrival == Some(Arrival::Done)
    }
}

/// Communicators' lives.
impl Machine {
    /// A communicator for each of these devices, on each of which somebody has a context.
    pub(crate) fn new_communicators(&mut self, devices: &[i32]) -> Outcome<Vec<u64>> {
        self.context().map_err(of_the_runtime)?;
        if let Some(message) = self.injection.group() {
            return Err(Failure::new(hccl::INTERNAL, message));
        }
        let mut members = Vec::new();
        for (rank, device) in devices.iter().enumerate() {
            if devices[..rank].contains(device) {
                return Err(Failure::new(hccl::PARA, format!("device {device} is named twice")));
            }
            let mut contexts = self.contexts.values();
            let is_open = |context: &crate::machine::Context| i64::from(context.device) == i64::from(*device);
            if !contexts.any(is_open) {
                let message = format!("device {device} was not opened: that HCCL does it is not modelled");
                return Err(Failure::new(hccl::PARA, message));
            }
            members.push(Member { device: *device as u32, is_live: true, thread: None, arrival: None, num_done: 0 });
        }
        let handles: Vec<u64> = devices.iter().map(|_| self.new_handle(Kind::Communicator)).collect();
        let index = self.groups.groups.len();
        self.groups.places.extend(handles.iter().enumerate().map(|(rank, handle)| (*handle, (index, rank))));
        self.groups.groups.push(Group { members, ..Group::default() });
        Ok(handles)
    }

    /// Ends one whose work has run, on a thread that works on its device.
    pub(crate) fn destroy_communicator(&mut self, communicator: u64) -> Outcome<()> {
        self.check_device_of(communicator)?;
        if self.holder(communicator).is_some() {
            return Err(Failure::new(hccl::PARA, "a collective of the communicator is still queued"));
        }
        self.groups.member(communicator)?.is_live = false;
        Ok(())
    }

    /// What became of collectives that have run.
    pub(crate) fn async_error(&mut self, communicator: u64) -> Outcome<i32> {
        self.groups.member(communicator)?;
        let (group, _) = self.groups.place(communicator)?;
        Ok(self.groups.groups[group].async_error)
    }

    /// The thread works on the communicator's device, whatever became of that.
    fn check_device_of(&mut self, communicator: u64) -> Outcome<()> {
        let device = self.groups.member(communicator)?.device;
        let worked_on = self.contexts.get(&current()).map(|context| context.device);
        if worked_on == Some(device) {
            return Ok(());
        }
        let name = worked_on.map_or("none".into(), |device| device.to_string());
        let message = format!("the communicator is of device {device}, the thread works on {name}");
        Err(Failure::new(hccl::PARA, message))
    }

    /// Communicators that nobody ended.
    pub(crate) fn leaked_communicators(&self) -> Vec<String> {
        // A lost device takes everything with it.
        let is_lost =
            |device: u32| self.contexts.values().any(|context| context.device == device && context.sticky.is_some());
        let members = self.groups.groups.iter().flat_map(|group| group.members.iter().enumerate());
        let leaked = members.filter(|(_, member)| member.is_live && !is_lost(member.device));
        leaked.map(|(rank, member)| format!("the communicator of rank {rank}, on device {}", member.device)).collect()
    }
}

/// Queued sums, and their turn.
impl Machine {
    /// Queues a sum on a stream of the communicator's device, on a thread that works on that device and on no other rank.
    pub(crate) fn all_reduce(&mut self, communicator: u64, stream: u64, call: Call) -> Outcome<()> {
        if let Some(message) = self.injection.collective() {
            return Err(Failure::new(hccl::INTERNAL, message));
        }
        self.check_device_of(communicator)?;
        self.context().and_then(|context| context.stream(stream).map(|_| ())).map_err(of_the_runtime)?;
        if call.count == 0 {
            return Err(Failure::new(hccl::PARA, "a sum of nothing is not modelled"));
        }
        if let Some(message) = call.misplaced() {
            return Err(Failure::new(hccl::PARA, message));
        }
        let outside = |failure: Failure| Failure::new(hccl::PARA, failure.message);
        self.check_sum(&call).map_err(outside)?;
        self.check_thread(communicator)?;
        self.context()?.stream(stream)?.push(Op::Collective(Collective { communicator, call }))?;
        self.has_news = true;
        Ok(())
    }

    /// Its memory lies in live allocations of the current context.
    fn check_sum(&mut self, call: &Call) -> Outcome<()> {
        let memory = &self.context()?.memory;
        for (what, address) in [("a sum of", call.from), ("a sum to", call.to)] {
            let range = address..address.saturating_add(call.num_bytes() as u64);
            if memory.holder(range).is_none() {
                let place = memory.describe(address);
                let message = format!("{what} {} bytes at {address:#x}, {place}", call.num_bytes());
                return Err(Failure::new(status::AICORE_EXCEPTION, message));
            }
        }
        Ok(())
    }

    /// HCCL may wait for the other ranks before it returns: each has a thread of its own.
    fn check_thread(&mut self, communicator: u64) -> Outcome<()> {
        let (me, (group, rank)) = (std::thread::current().id(), self.groups.place(communicator)?);
        let Group { members, broken, .. } = &mut self.groups.groups[group];
        if let Some(message) = broken {
            return Err(Failure::new(hccl::INTERNAL, message.clone()));
        }
        members[rank].thread = Some(me);
        let mut others = members.iter().enumerate().filter(|(other, _)| *other != rank);
        match others.find(|(_, member)| member.thread == Some(me)) {
            Some((other, _)) => {
                let message = format!("one thread queues collectives of ranks {other} and {rank}");
                Err(Failure::new(hccl::PARA, message))
            }
            None => Ok(()),
        }
    }

    /// A stream has come to a collective: true where it can go on.
    pub(crate) fn pass(&mut self, collective: &Collective) -> Outcome<bool> {
        let Collective { communicator, call } = collective;
        let (group, rank) = self.groups.place(*communicator)?;
        let Group { members, broken, .. } = &self.groups.groups[group];
        if let Some(message) = broken {
            return Err(Failure::new(status::AICORE_EXCEPTION, message.clone()));
        }
        if members[rank].arrival.is_none() {
            self.check_sum(call)?;
            self.groups.groups[group].members[rank].arrival = Some(Arrival::Waits(*call));
            self.has_news = true;
            self.complete(group)?;
        }
        let member = &mut self.groups.groups[group].members[rank];
        let is_done = member.arrival == Some(Arrival::Done);
        if is_done {
            member.arrival = None;
            member.num_done += 1;
        }
        Ok(is_done)
    }

    /// Sums where all ranks have come.
    fn complete(&mut self, index: usize) -> Outcome<()> {
        let group = &mut self.groups.groups[index];
        let part = |member: &Member| match member.arrival {
            Some(Arrival::Waits(call)) => Some(call),
            Some(Arrival::Done) | None => None,
        };
        let Some(calls) = group.members.iter().map(part).collect::<Option<Vec<Call>>>() else { return Ok(()) };
        if let Some(message) = disagreement(&calls) {
            group.broken = Some(message.clone());
            return Err(Failure::new(status::AICORE_EXCEPTION, message));
        }
        match self.injection.sum() {
            Some(message) => {
                say(NAME, &message);
                group.async_error = hccl::REMOTE;
            }
            None => sum(&calls),
        }
        group.members.iter_mut().for_each(|member| member.arrival = Some(Arrival::Done));
        Ok(())
    }

    /// A collective was discarded: its group is out of step from now on.
    pub(crate) fn interrupt(&mut self, communicator: u64) -> Outcome<()> {
        let (group, rank) = self.groups.place(communicator)?;
        let Group { members, broken, .. } = &mut self.groups.groups[group];
        members[rank].arrival = None;
        broken.get_or_insert_with(|| format!("a collective of rank {rank} was aborted"));
        Ok(())
    }

    /// The context and the stream that hold a collective of a communicator; on a device that is lost nothing does.
    fn holder(&self, communicator: u64) -> Option<(u64, u64)> {
        let is_of = |op: &Op| matches!(op, Op::Collective(collective) if collective.communicator == communicator);
        let mut usable = self.contexts.iter().filter(|(_, context)| context.sticky.is_none());
        usable.find_map(|(context, held)| {
            let mut streams = held.streams.iter();
            let (stream, _) = streams.find(|(_, stream)| stream.queue.iter().any(is_of))?;
            Some((*context, *stream))
        })
    }

    /// Lets the streams of ranks that have not come go on until they have, as devices do by themselves: true where all have
    /// come, or it shows that they never will.
    pub(crate) fn advance_peers(&mut self, communicator: u64) -> Outcome<bool> {
        let (group, _) = self.groups.place(communicator)?;
        if self.groups.is_advancing {
            return Ok(false);
        }
        let is_late = |(_, place): &(&u64, &(usize, usize))| {
            let member = &self.groups.groups[place.0].members[place.1];
            place.0 == group && !matches!(member.arrival, Some(Arrival::Waits(_)))
        };
        let late: Vec<u64> = self.groups.places.iter().filter(is_late).map(|(handle, _)| *handle).collect();
        let mine = current();
        self.groups.is_advancing = true;
        for peer in late {
            if let Some((context, stream)) = self.holder(peer) {
                set_current(context);
                self.advance(stream, communicator);
            }
        }
        self.groups.is_advancing = false;
        set_current(mine);
        Ok(self.groups.is_settled(communicator))
    }

    /// Runs a stream of the current context until nothing keeps `communicator`.
    fn advance(&mut self, stream: u64, communicator: u64) {
        while !self.groups.is_settled(communicator) {
            match self.run_one(stream) {
                Ok(Progress::Ran) => {}
                Ok(Progress::Idle | Progress::Blocked) => return,
                // The peer hears of it with its next call.
                Err(Failure { message, .. }) => return say(NAME, &message),
            }
        }
    }

    /// What the calling thread's stream waits for.
    pub(crate) fn blocked(&mut self, handle: u64) -> Failure {
        let Ok(stream) = self.context().and_then(|context| context.stream(handle)) else {
            return Failure::new(BLOCKED, "a stream");
        };
        let Some(Op::Collective(Collective { communicator, .. })) = stream.queue.front() else {
            return Failure::new(BLOCKED, "a stream");
        };
        let communicator = *communicator;
        let Ok((group, rank)) = self.groups.place(communicator) else { return Failure::new(BLOCKED, "a stream") };
        let members = &self.groups.groups[group].members;
        let is_absent = |rank: &usize| !matches!(members[*rank].arrival, Some(Arrival::Waits(_)));
        let absent: Vec<usize> = (0..members.len()).filter(is_absent).collect();
        let (number, world_size) = (members[rank].num_done + 1, members.len());
        let message = format!("rank {rank} of {world_size} is at its collective {number}, ranks {absent:?} are not");
        Failure::new(BLOCKED, message)
    }
}

/// What the runtime refused, as HCCL passes it on.
fn of_the_runtime(failure: Failure) -> Failure {
    Failure { status: hccl::RUNTIME, ..failure }
}
