//! The destination of the model, and the steps of an agent there.

/// Changes that are to be applied, one after the other, each to all documents.
pub const CHANGES: u8 = 2;

/// One of each worker of the first agent.
pub const DOCUMENTS: usize = 2;

/// Definitions that may wait on the server.
const MOST_DEFINITIONS: usize = 3;

/// The epoch of what is closed.
const CLOSED: u8 = u8::MAX;

/// What the engine relies on. Each negative test switches one off.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A writer's transaction touches its fence where that has the writer's epoch.
    pub writes_touch_the_fence: bool,
    /// A successor raises the fences before anything else.
    pub fences_are_raised: bool,
    /// The checkpoint is changed only where its epoch isn't higher.
    pub checkpoint_has_an_epoch: bool,
    /// The position is noted once all before it is committed.
    pub position_follows_the_writes: bool,
    /// A migration becomes complete only where its claim's epoch isn't higher.
    pub completion_has_an_epoch: bool,
    /// A successor raises the claim's epoch.
    pub claim_is_raised: bool,
    /// A successor reads the claim after it has raised everything.
    pub claim_is_read_again: bool,
    /// A definition is sent only if the checkpoint has no later epoch.
    pub definitions_ask: bool,
    /// A successor ends the definitions that earlier epochs left running.
    pub definitions_are_ended: bool,
    /// No agent stands still between asking and the arrival of its definition. The engine can't rule that out.
    pub definitions_arrive_at_once: bool,
}

pub const RULES: Rules = Rules {
    writes_touch_the_fence: true,
    fences_are_raised: true,
    checkpoint_has_an_epoch: true,
    position_follows_the_writes: true,
    completion_has_an_epoch: true,
    claim_is_raised: true,
    claim_is_read_again: true,
    definitions_ask: true,
    definitions_are_ended: true,
    definitions_arrive_at_once: true,
};

/// What an agent does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// It doesn't have the migration yet.
    Wait,
    TakeClaim,
    EndSessions,
    RaiseFence(usize),
    RaiseCheckpoint,
    RaiseClaim,
    EndSessionsAgain,
    EndDefinitions,
    OwnFence(usize),
    ReadClaimAgain,
    Load,
    /// Asks whether it may define: the index unique, as at the end of a cutover, or not yet.
    Ask(bool),
    Send(bool),
    Defining(bool),
    /// Opens a transaction that writes a change to a document.
    Begin(u8, usize),
    Commit(u8, usize),
    Note(u8),
    Complete,
    Close,
    /// The migration is complete.
    Done,
    /// It has found that another has the migration.
    Fenced,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    epoch: u8,
    /// The agent whose session is noted.
    session: Option<usize>,
    /// The agent whose open transaction has touched it: who else writes it waits.
    touched_by: Option<usize>,
}

/// The destination, and where each agent is; agent `n` has epoch `n + 1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub agents: Vec<Step>,
    /// Open transactions: the agent, the change, the document.
    pub transactions: Vec<(usize, u8, usize)>,
    pub fences: Vec<Fence>,
    /// Epoch and position.
    pub checkpoint: (u8, u8),
    /// Epoch, and whether the migration is complete.
    pub claim: (u8, bool),
    /// Of each document the last change.
    pub documents: Vec<u8>,
    pub unique: bool,
    /// Definitions that have arrived, by epoch; one collection takes them one after the other.
    pub definitions: Vec<(u8, bool)>,
    /// The epoch up to which all fences are raised, and that up to which definitions are ended.
    pub raised: u8,
    pub ended: u8,
    /// What must not have happened.
    pub broken: Option<&'static str>,
}

impl World {
    pub fn abort(&mut self, agent: usize) {
        self.transactions.retain(|(owner, ..)| *owner != agent);
        self.fences
            .iter_mut()
            .filter(|fence| fence.touched_by == Some(agent))
            .for_each(|fence| fence.touched_by = None);
    }

    /// Ends the sessions that earlier epochs noted at their fences.
    fn end_sessions(&mut self, epoch: u8) {
        let noted: Vec<usize> = self.fences.iter().filter_map(|fence| fence.session).collect();
        noted.into_iter().filter(|agent| epoch_of(*agent) < epoch).for_each(|agent| self.abort(agent));
    }

    fn commit(&mut self, agent: usize, change: u8, document: usize) {
        if epoch_of(agent) < self.raised {
            self.broken = Some("a write of an earlier epoch after the fences were raised");
        } else if change > self.documents[document] + 1 {
            self.broken = Some("a change that was left out");
        }
        self.documents[document] = change;
        self.abort(agent);
    }

    pub fn define(&mut self, rules: Rules, is_answered: bool) {
        let (epoch, unique) = self.definitions.remove(0);
        if epoch < self.ended {
            self.broken = Some("a definition of an earlier epoch after those were ended");
        }
        self.unique = unique;
        let agent = &mut self.agents[usize::from(epoch) - 1];
        if is_answered && *agent == Step::Defining(unique) {
            *agent = if unique { Step::Complete } else { rules.after(self.checkpoint.1) };
        }
    }
}

fn epoch_of(agent: usize) -> u8 {
    agent as u8 + 1
}

/// The first agent has a worker for each document, its successors have one for all.
fn workers_of(agent: usize) -> usize {
    if agent == 0 { DOCUMENTS } else { 1 }
}

impl Rules {
    /// What follows a position.
    fn after(self, position: u8) -> Step {
        match position {
            CHANGES => Step::Ask(true),
            _ if self.position_follows_the_writes => Step::Begin(position + 1, 0),
            _ => Step::Note(position + 1),
        }
    }

    /// Carries out an agent's step; the next one, or `None` while it has to wait or has ended.
    pub fn step(self, world: &mut World, agent: usize) -> Option<Step> {
        match world.agents[agent] {
            Step::Wait | Step::Done | Step::Fenced => None,
            Step::Ask(_) | Step::Send(_) | Step::Defining(_) => self.define(world, agent),
            Step::Begin(..) | Step::Commit(..) | Step::Note(_) => self.write(world, agent),
            Step::Complete | Step::Close => Some(self.complete(world, agent)),
            _ => self.take_over(world, agent),
        }
    }

    fn take_over(self, world: &mut World, agent: usize) -> Option<Step> {
        let epoch = epoch_of(agent);
        Some(match world.agents[agent] {
            Step::TakeClaim => {
                if world.claim.1 {
                    Step::Close
                } else {
                    Step::EndSessions
                }
            }
            Step::EndSessions => {
                world.end_sessions(epoch);
                if self.fences_are_raised { Step::RaiseFence(0) } else { Step::RaiseCheckpoint }
            }
            Step::RaiseFence(worker) => {
                let fence = &mut world.fences[worker];
                if fence.touched_by.is_some() {
                    return None;
                }
                fence.epoch = fence.epoch.max(epoch);
                if worker + 1 < DOCUMENTS { Step::RaiseFence(worker + 1) } else { Step::RaiseCheckpoint }
            }
            Step::RaiseCheckpoint => {
                world.raised = world.raised.max(epoch);
                world.checkpoint.0 = world.checkpoint.0.max(epoch);
                if self.claim_is_raised { Step::RaiseClaim } else { Step::EndSessionsAgain }
            }
            Step::RaiseClaim => {
                world.claim.0 = world.claim.0.max(epoch);
                Step::EndSessionsAgain
            }
            Step::EndSessionsAgain => {
                world.end_sessions(epoch);
                Step::EndDefinitions
            }
            Step::EndDefinitions => {
                if self.definitions_are_ended {
                    world.definitions.retain(|(former, _)| *former >= epoch);
                }
                world.ended = world.ended.max(epoch);
                Step::OwnFence(0)
            }
            Step::OwnFence(worker) => {
                let fence = &mut world.fences[worker];
                if fence.touched_by.is_some() {
                    return None;
                }
                if fence.epoch > epoch {
                    return Some(Step::Fenced);
                }
                (fence.epoch, fence.session) = (epoch, Some(agent));
                if worker + 1 < workers_of(agent) { Step::OwnFence(worker + 1) } else { Step::ReadClaimAgain }
            }
            Step::ReadClaimAgain if self.claim_is_read_again && world.claim.1 => Step::Fenced,
            Step::ReadClaimAgain => Step::Load,
            // A cutover of the one before made it unique: that is put off again.
            _ if world.unique => Step::Ask(false),
            _ => self.after(world.checkpoint.1),
        })
    }

    fn write(self, world: &mut World, agent: usize) -> Option<Step> {
        let epoch = epoch_of(agent);
        Some(match world.agents[agent] {
            Step::Begin(change, document) => {
                // What is open in its session ends with the next transaction there.
                world.abort(agent);
                let fence = &mut world.fences[document % workers_of(agent)];
                if self.writes_touch_the_fence {
                    if fence.touched_by.is_some() {
                        return None;
                    }
                    if fence.epoch != epoch {
                        return Some(Step::Fenced);
                    }
                    fence.touched_by = Some(agent);
                }
                world.transactions.push((agent, change, document));
                Step::Commit(change, document)
            }
            Step::Commit(change, document) => {
                if !world.transactions.contains(&(agent, change, document)) {
                    return Some(Step::Begin(change, document));
                }
                world.commit(agent, change, document);
                match document + 1 < DOCUMENTS {
                    true => Step::Begin(change, document + 1),
                    false if self.position_follows_the_writes => Step::Note(change),
                    false => self.after(change),
                }
            }
            Step::Note(position) => {
                if world.checkpoint.0 > epoch {
                    if self.checkpoint_has_an_epoch {
                        return Some(Step::Fenced);
                    }
                    world.broken = Some("a position of an earlier epoch after the checkpoint was raised");
                }
                world.checkpoint = (epoch, position);
                if self.position_follows_the_writes { self.after(position) } else { Step::Begin(position, 0) }
            }
            other => other,
        })
    }

    fn define(self, world: &mut World, agent: usize) -> Option<Step> {
        let epoch = epoch_of(agent);
        Some(match world.agents[agent] {
            Step::Ask(_) if self.definitions_ask && world.checkpoint.0 > epoch => Step::Fenced,
            Step::Ask(unique) if !self.definitions_arrive_at_once => Step::Send(unique),
            Step::Ask(unique) | Step::Send(unique) if world.definitions.len() < MOST_DEFINITIONS => {
                world.definitions.push((epoch, unique));
                Step::Defining(unique)
            }
            // Ended by a successor, or carried out and the answer was lost.
            Step::Defining(unique) if !world.definitions.contains(&(epoch, unique)) => Step::Ask(unique),
            _ => return None,
        })
    }

    fn complete(self, world: &mut World, agent: usize) -> Step {
        let epoch = epoch_of(agent);
        if world.agents[agent] == Step::Complete {
            if world.claim.1 || (self.completion_has_an_epoch && world.claim.0 > epoch) {
                return Step::Fenced;
            }
            if world.ended > epoch {
                world.broken = Some("a completion by an agent whose successor works");
            }
            world.claim.1 = true;
            return Step::Close;
        }
        let open: Vec<usize> = world.transactions.iter().map(|(owner, ..)| *owner).collect();
        open.into_iter().for_each(|owner| world.abort(owner));
        world.fences.iter_mut().for_each(|fence| fence.epoch = CLOSED);
        world.checkpoint.0 = CLOSED;
        Step::Done
    }
}
