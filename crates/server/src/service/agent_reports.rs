//! Agents' reports of migrations.

use super::{
    migration_reports,
    migrations::{NotChanged, apply},
    reverse,
    work::LEASE_SECONDS,
};
use crate::{ServerError, store::Store};
use limosa_model::{
    AgentId, Epoch, Migration, OrgId, PhaseKind, Timestamp,
    cutover::RunOptions,
    protocol::{self, Directive, ReportResponse},
    transition::{Event, Report},
};

/// Who reports of what.
pub(crate) struct Reporter<'a> {
    pub store: &'a Store,
    pub org: OrgId,
    pub agent: AgentId,
    /// As it was before the report.
    pub migration: Migration,
    /// How long a migration waits for its cutover.
    pub window_seconds: i64,
}

impl Reporter<'_> {
    /// Takes a report in; what the agent is to do now. One that lost its lease is told to stop.
    pub fn take(self, report: protocol::Report) -> Result<ReportResponse, NotChanged> {
        let protocol::Report { epoch, phase, progress, failure, rehearsal, destination, record, identities } = report;
        if let Some(identities) = identities.filter(|_| self.migration.carried.identities.is_none()) {
            let event = Event::Identified { agent: self.agent, epoch, identities: Box::new(identities) };
            self.try_apply(event)?;
        }
        let is_reverse = self.migration.reversal.is_some();
        if self.holds(epoch) {
            if let Some(facts) = destination.filter(|_| !is_reverse) {
                let known = &self.migration.destination;
                self.store.put_facts(known.group_id, &known.cluster_name, &facts)?;
            }
            if let Some(record) = &record {
                self.keep(record)?;
            }
        }
        let window_seconds = if is_reverse { reverse::WINDOW_SECONDS } else { self.window_seconds };
        let (agent, progress, lease_seconds) = (self.agent, Box::new(progress), LEASE_SECONDS);
        let event = Event::Report(Report { agent, epoch, phase, progress, failure, lease_seconds, window_seconds });
        let mut ordered = self.advance(event, epoch)?;
        if let Some(rehearsal) = rehearsal
            && let Some(migration) = self.try_apply(Event::Rehearsed { agent, epoch, rehearsal })?
        {
            ordered = self.ordered(&migration, epoch);
        }
        Ok(ordered)
    }

    fn holds(&self, epoch: Epoch) -> bool {
        self.migration.lease.as_ref().is_some_and(|lease| lease.agent == self.agent && lease.epoch == epoch)
    }

    /// Keeps what the engine says of the whole migration.
    fn keep(&self, record: &limosa_model::report::Record) -> Result<(), ServerError> {
        self.store.put_record(self.migration.id, record)?;
        match record.turning_point {
            Some(from) => reverse::begin(self.store, self.org, self.migration.id, from),
            None => Ok(()),
        }
    }

    fn advance(&self, event: Event, epoch: Epoch) -> Result<ReportResponse, NotChanged> {
        let id = self.migration.id;
        match apply(self.store, id, event, Timestamp::now()) {
            Ok(migration) => {
                if migration.phase.kind() == PhaseKind::Complete {
                    migration_reports::report(self.store, &migration)?;
                }
                Ok(self.ordered(&migration, epoch))
            }
            Err(NotChanged::Illegal(_)) => Ok(match self.store.migration(id)? {
                Some(migration) => self.ordered(&migration, epoch),
                None => ReportResponse { directive: Directive::Stop, wishes: RunOptions::default() },
            }),
            Err(error) => Err(error),
        }
    }

    /// What becomes of it, if anything does.
    fn try_apply(&self, event: Event) -> Result<Option<Migration>, ServerError> {
        match apply(self.store, self.migration.id, event, Timestamp::now()) {
            Ok(migration) => Ok(Some(migration)),
            Err(NotChanged::Store(error)) => Err(error),
            Err(NotChanged::Illegal(_) | NotChanged::Unknown) => Ok(None),
        }
    }

    fn ordered(&self, migration: &Migration, epoch: Epoch) -> ReportResponse {
        ReportResponse { directive: migration.directive(self.agent, epoch), wishes: migration.wishes() }
    }
}
