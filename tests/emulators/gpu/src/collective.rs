//! Collectives: sums to which all ranks of a group come, each when its stream's turn comes. The last one brings the result
//! to all of them.

use std::collections::BTreeMap;
use std::thread::ThreadId;

use emulator_common::collective::{Call, disagreement, sum};
use emulator_common::exit::say;
use emulator_common::{Failure, Outcome};

use crate::config::Gpu;
use crate::driver::{BLOCKED, DeviceId, Driver, set_current};
use crate::nccl::result;
use crate::status;
use crate::stream::Progress;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Live,
    Destroyed,
    Aborted,
}

/// A communicator: one rank of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) context: u64,
    pub(crate) device: DeviceId,
    pub(crate) life: Life,
    /// The thread whose call to end it is under way.
    pub(crate) ending: Option<ThreadId>,
    /// The thread that last queued a collective of it by itself.
    pub(crate) thread: Option<ThreadId>,
    arrival: Option<Arrival>,
    num_done: u64,
}

impl Member {
    pub(crate) fn new(context: u64, device: DeviceId) -> Self {
        Self { context, device, life: Life::Live, ending: None, thread: None, arrival: None, num_done: 0 }
    }

    /// Its kernels, if any, quit.
    pub(crate) fn end(&mut self, life: Life) {
        self.life = life;
        self.arrival = None;
    }
}

/// Communicators that were made together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) members: Vec<Member>,
    /// Why nothing of it can be right any more.
    broken: Option<String>,
    /// What it answers about collectives that have run.
    pub(crate) async_error: Option<i32>,
}

/// All groups, and where in them a communicator is. Both stay: handles are never used twice.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    pub(crate) groups: Vec<Group>,
    pub(crate) places: BTreeMap<u64, (usize, usize)>,
    /// Set while one device's stream goes on for the sake of another's.
    is_advancing: bool,
}

impl Groups {
    /// Index of its group, and its rank.
    pub(crate) fn place(&self, communicator: u64) -> Outcome<(usize, usize)> {
        let unknown = || Failure::new(result::INVALID_ARGUMENT, format!("{communicator:#x} is no communicator"));
        self.places.get(&communicator).copied().ok_or_else(unknown)
    }

    fn member(&mut self, communicator: u64) -> Outcome<&mut Member> {
        let (group, rank) = self.place(communicator)?;
        Ok(&mut self.groups[group].members[rank])
    }

    /// True where looking again will show something new.
    fn is_settled(&self, communicator: u64) -> bool {
        let Ok((group, rank)) = self.place(communicator) else { return true };
        let Group { members, broken, .. } = &self.groups[group];
        broken.is_some() || members[rank].arrival == Some(Arrival::Done)
    }
}

impl<G: Gpu> Driver<G> {
    /// A communicator that is alive.
    pub(crate) fn member(&mut self, communicator: u64) -> Outcome<&mut Member> {
        let member = self.groups.member(communicator)?;
        let stale = |how| Failure::new(result::INVALID_ARGUMENT, format!("communicator {communicator:#x} was {how}"));
        match member.life {
            Life::Live => Ok(member),
            Life::Destroyed => Err(stale("destroyed")),
            Life::Aborted => Err(stale("aborted")),
        }
    }

    /// A stream has come to a collective: true where it can go on.
    pub(crate) fn pass(&mut self, collective: &Collective) -> Outcome<bool> {
        let Collective { communicator, call } = collective;
        let (group, rank) = self.groups.place(*communicator)?;
        let Group { members, broken, .. } = &self.groups.groups[group];
        let life = members[rank].life;
        match life {
            Life::Live => {}
            Life::Aborted => return Ok(true),
            Life::Destroyed => {
                return Err(Failure::new(status::ILLEGAL_ADDRESS, "a collective of a communicator that was destroyed"));
            }
        }
        if let Some(message) = broken {
            return Err(Failure::new(status::LAUNCH_FAILED, message));
        }
        if members[rank].arrival.is_none() {
            let context = self.context()?;
            for (what, address) in [("a sum of", call.from), ("a sum to", call.to)] {
                let checked = context.check_device_range(what, address, call.num_bytes());
                checked.map_err(|failure| Failure::new(status::ILLEGAL_ADDRESS, failure.message))?;
            }
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
        self.has_news = true;
        if let Some(message) = disagreement(&calls) {
            group.broken = Some(message.clone());
            return Err(Failure::new(status::LAUNCH_FAILED, message));
        }
        match self.injection.sum() {
            Some(message) => {
                say(G::EMULATOR, &message);
                group.async_error = Some(result::REMOTE_ERROR);
            }
            None => sum(&calls),
        }
        group.members.iter_mut().for_each(|member| member.arrival = Some(Arrival::Done));
        Ok(())
    }

    /// Lets the streams of ranks that have not come go on until they have, as devices do by themselves: true where all have
    /// come, or it shows that they never will.
    pub(crate) fn advance_peers(&mut self, communicator: u64) -> Outcome<bool> {
        let (group, _) = self.groups.place(communicator)?;
        if self.groups.is_advancing {
            return Ok(false);
        }
        let waits = |arrival| matches!(arrival, Some(Arrival::Waits(_)));
        let late = |(handle, place): (&u64, &(usize, usize))| {
            let member = &self.groups.groups[place.0].members[place.1];
            let is_late = place.0 == group && member.life == Life::Live && !waits(member.arrival);
            is_late.then_some((*handle, member.context))
        };
        let peers: Vec<(u64, u64)> = self.groups.places.iter().filter_map(late).collect();
        let mine = crate::driver::current();
        self.groups.is_advancing = true;
        for (peer, context) in peers {
            set_current(context);
            self.advance(peer, communicator);
        }
        self.groups.is_advancing = false;
        set_current(mine);
        Ok(self.groups.is_settled(communicator))
    }

    /// Runs the stream that holds a collective of `peer` in the current context, until nothing keeps `communicator`.
    fn advance(&mut self, peer: u64, communicator: u64) {
        let Ok(context) = self.context() else { return };
        let mut streams = context.streams.iter();
        let holder = streams.find(|(_, stream)| stream.queue.iter().any(|op| op.uses(peer)));
        let Some(handle) = holder.map(|(handle, _)| *handle) else { return };
        while !self.groups.is_settled(communicator) {
            match self.run_one(handle) {
                Ok(Progress::Ran) => {}
                Ok(Progress::Idle | Progress::Blocked) => return,
                // The peer hears of it with its next call.
                Err(Failure { message, .. }) => return say(G::EMULATOR, &message),
            }
        }
    }

    /// What the calling thread's stream waits for.
    pub(crate) fn blocked(&mut self, handle: u64) -> Failure {
        let Ok(stream) = self.context().and_then(|context| context.stream(handle)) else {
            return Failure::new(BLOCKED, "a stream");
        };
        let collective = stream.queue.front().and_then(|op| op.collective()).copied();
        let place = collective.and_then(|collective| self.groups.place(collective.communicator).ok());
        let Some((group, rank)) = place else { return Failure::new(BLOCKED, "a wait for an event") };
        let members = &self.groups.groups[group].members;
        let number = members[rank].num_done + 1;
        let is_absent = |rank: &usize| !matches!(members[*rank].arrival, Some(Arrival::Waits(_)));
        let absent: Vec<usize> = (0..members.len()).filter(is_absent).collect();
        let message =
            format!("rank {rank} of {} is at its collective {number}, ranks {absent:?} are not", members.len());
        Failure::new(BLOCKED, message)
    }

    /// True where a graph of some context holds a collective of the group. A lost device takes its graphs with it.
    pub(crate) fn has_graph_of(&self, group: usize) -> bool {
        let is_of = |communicator| self.groups.place(communicator).is_ok_and(|(of, _)| of == group);
        self.contexts.values().filter(|context| context.sticky.is_none()).any(|context| {
            let mut graphs = context.graphs.values().chain(context.executable_graphs.values());
            graphs.any(|graph| graph.collectives().any(|collective| is_of(collective.communicator)))
        })
    }

    /// Communicators that nobody ended.
    pub(crate) fn leaked_communicators(&self) -> Vec<String> {
        let groups = self.groups.groups.iter();
        let members = groups.flat_map(|group| group.members.iter().enumerate());
        // A lost device takes everything with it.
        let is_lost = |member: &Member| self.contexts.get(&member.context).is_some_and(|held| held.sticky.is_some());
        let leaked = members.filter(|(_, member)| member.life == Life::Live && !is_lost(member));
        leaked.map(|(rank, member)| format!("the communicator of rank {rank}, on device {}", member.device)).collect()
    }
}
