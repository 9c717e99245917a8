//! Epochs and fences as a model, of which every state is visited: agents that hold one migration after each other, any of
//! which may stand still at any step for any time. One that dies is one that never moves again. The code that it mirrors is
//! in `destination/{checkpoint,fences,claims,definition}.rs`; a rule that is changed there is changed here.

mod world;

use std::collections::HashSet;
use world::{CHANGES, DOCUMENTS, Fence, RULES, Rules, Step, World};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    /// The control plane gives the migration to the next agent: the lease of the one before has lapsed.
    Assigned(usize),
    /// A step takes effect.
    Stepped(usize),
    /// It does, and its answer is lost: the agent does it again.
    AnswerLost(usize),
    /// The server ends a transaction that is open for too long.
    Aborted(usize),
    /// The server carries out the definition that has waited for longest.
    Defined { is_answered: bool },
}

/// The rules, and how many agents have the migration one after the other.
struct Migration {
    rules: Rules,
    agents: usize,
}

/// States in the order in which they were reached, each with the state and the event before it.
type Visited = Vec<(World, Option<(usize, Event)>)>;

impl Migration {
    fn begin(&self) -> World {
        World {
            agents: vec![Step::Wait; self.agents],
            transactions: Vec::new(),
            fences: vec![Fence::default(); DOCUMENTS],
            checkpoint: (0, 0),
            claim: (0, false),
            documents: vec![0; DOCUMENTS],
            unique: false,
            definitions: Vec::new(),
            raised: 0,
            ended: 0,
            broken: None,
        }
    }

    /// Everything that can happen next; what has to wait, or has ended, changes nothing.
    fn events(&self, world: &World) -> Vec<Event> {
        let next = world.agents.iter().position(|step| *step == Step::Wait);
        let mut events: Vec<Event> = next.map(Event::Assigned).into_iter().collect();
        events.extend((0..self.agents).flat_map(|agent| [Event::Stepped(agent), Event::AnswerLost(agent)]));
        events.extend(world.transactions.iter().map(|(agent, ..)| Event::Aborted(*agent)));
        if !world.definitions.is_empty() {
            events.extend([true, false].map(|is_answered| Event::Defined { is_answered }));
        }
        events
    }

    fn after(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        match event {
            Event::Assigned(agent) => next.agents[agent] = Step::TakeClaim,
            Event::Stepped(agent) => next.agents[agent] = self.rules.step(&mut next, agent)?,
            Event::AnswerLost(agent) => drop(self.rules.step(&mut next, agent)?),
            Event::Aborted(agent) => next.abort(agent),
            Event::Defined { is_answered } => next.define(self.rules, is_answered),
        }
        let is_exact = next.unique && next.documents.iter().all(|change| *change == CHANGES);
        if next.claim.1 && !is_exact {
            next.broken = next.broken.or(Some("a complete migration isn't exact"));
        }
        Some(next)
    }

    /// Visits every state that can be reached, the nearest first; a broken one ends the search and is the last.
    fn visit(&self) -> Visited {
        let mut known = HashSet::from([self.begin()]);
        let mut visited = vec![(self.begin(), None)];
        let mut at = 0;
        while at < visited.len() {
            let world = visited[at].0.clone();
            for event in self.events(&world) {
                let Some(next) = self.after(&world, event).filter(|next| known.insert(next.clone())) else { continue };
                let is_broken = next.broken.is_some();
                visited.push((next, Some((at, event))));
                if is_broken {
                    return visited;
                }
            }
            at += 1;
        }
        visited
    }
}

/// The events that lead to the last state.
fn way_to_the_last(visited: &Visited) -> Vec<Event> {
    let mut way = Vec::new();
    let mut from = visited.last().and_then(|(_, from)| *from);
    while let Some((before, event)) = from {
        way.push(event);
        from = visited[before].1;
    }
    way.reverse();
    way
}

#[test]
fn nothing_of_a_former_agent_takes_effect() {
    let visited = Migration { rules: RULES, agents: 3 }.visit();
    let last = &visited.last().expect("there is the first").0;
    assert_eq!(last.broken, None, "{:?}", way_to_the_last(&visited));
    // It has seen what it is about.
    let is_reached = |what: &dyn Fn(&World) -> bool| visited.iter().any(|(world, _)| what(world));
    assert!(is_reached(&|world| world.agents[0] == Step::Done && world.claim.0 == 1), "the first one completes it");
    assert!(is_reached(&|world| world.agents[2] == Step::Done && world.claim.0 == 3), "the last one completes it");
    assert!(is_reached(&|world| world.agents[..2] == [Step::Fenced; 2]), "both others are fenced");
    assert!(is_reached(&|world| world.unique && world.agents[1] == Step::Ask(false)), "a cutover is rolled back");
    eprintln!("{} states", visited.len());
}

/// Without any one of the rules there is a way to break what holds with all of them.
/// The last one is no rule but what the engine can't rule out: docs/architecture.md says so.
#[test]
fn every_rule_is_needed() {
    for (rules, what) in [
        (Rules { writes_touch_the_fence: false, ..RULES }, "a write of an earlier epoch"),
        (Rules { fences_are_raised: false, ..RULES }, "a write of an earlier epoch"),
        (Rules { checkpoint_has_an_epoch: false, ..RULES }, "a position of an earlier epoch"),
        (Rules { position_follows_the_writes: false, ..RULES }, "a change that was left out"),
        (Rules { completion_has_an_epoch: false, ..RULES }, "a completion by an agent whose successor works"),
        (Rules { claim_is_raised: false, ..RULES }, "a completion by an agent whose successor works"),
        (Rules { claim_is_read_again: false, ..RULES }, "a complete migration isn't exact"),
        (Rules { definitions_ask: false, ..RULES }, "a definition of an earlier epoch"),
        (Rules { definitions_are_ended: false, ..RULES }, "a definition of an earlier epoch"),
        (Rules { definitions_arrive_at_once: false, ..RULES }, "a definition of an earlier epoch"),
    ] {
        let visited = Migration { rules, agents: 2 }.visit();
        let way = way_to_the_last(&visited);
        let broken = visited.last().and_then(|(world, _)| world.broken);
        assert!(broken.is_some_and(|broken| broken.starts_with(what)), "{broken:?} with {rules:?}: {way:?}");
        eprintln!("{what}: {way:?}");
    }
}
