//! Draws a view. Whatever the terminal's size: what doesn't fit is left out from the bottom.

use super::view::{Asking, View};
use crate::ui::{report_age, words};
use indicatif::{HumanBytes, HumanCount};
use limosa_model::{PhaseKind, Timestamp};
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Flex, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Clear, Gauge, Paragraph, Sparkline, Wrap},
};
use std::collections::VecDeque;

const PHASES: [PhaseKind; 8] = [
    PhaseKind::Preparing,
    PhaseKind::Copying,
    PhaseKind::BuildingIndexes,
    PhaseKind::CatchingUp,
    PhaseKind::Synced,
    PhaseKind::CuttingOver,
    PhaseKind::Finalizing,
    PhaseKind::Complete,
];

/// Colour unless `NO_COLOR` is set, as <https://no-color.org> has it.
fn colour(colour: Color) -> Style {
    let without = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if without { Style::new() } else { Style::new().fg(colour) }
}

/// The colour of where it is; green only for what is known to be well.
fn mood(view: &View) -> Style {
    let style = match view.phase() {
        _ if view.is_unknown() => colour(Color::Red),
        Some(PhaseKind::Synced) if !view.is_ready() => colour(Color::Yellow),
        Some(PhaseKind::Synced | PhaseKind::Complete) => colour(Color::Green),
        Some(PhaseKind::Failed | PhaseKind::Expired) => colour(Color::Red),
        Some(PhaseKind::Paused | PhaseKind::Cancelled | PhaseKind::Scheduled) => colour(Color::Yellow),
        _ => colour(Color::Cyan),
    };
    style.add_modifier(Modifier::BOLD)
}

/// The whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let events = 2 + view.events.len().min(6) as u16;
    let parts = [
        Constraint::Length(2),
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Fill(1),
        Constraint::Length(events),
        Constraint::Length(1),
    ];
    let [head, next, gauge, facts, lines, namespaces, events, foot] = Layout::vertical(parts).areas(frame.area());
    draw_head(frame, head, view);
    let style = if view.is_lost { colour(Color::Red).add_modifier(Modifier::BOLD) } else { Style::new() };
    frame.render_widget(Paragraph::new(advice(view)).style(style).wrap(Wrap { trim: true }), next);
    let bar = colour(Color::Cyan).add_modifier(Modifier::BOLD);
    frame.render_widget(Gauge::default().gauge_style(bar).ratio(view.share()).label(percent(view.share())), gauge);
    draw_facts(frame, facts, view);
    draw_lines(frame, lines, view);
    draw_namespaces(frame, namespaces, view);
    draw_events(frame, events, view);
    draw_foot(frame, foot, view);
    draw_question(frame, view);
}

fn percent(share: f64) -> String {
    format!("{:.0} %", (share * 100.0).floor())
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let phase = view.phase();
    let title = Line::from(vec![
        Span::styled(format!("{} → {}", view.source(), view.destination()), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw("  "),
        Span::styled(title_of(view).to_uppercase(), mood(view)),
        Span::raw(format!("  {}", view.detail["id"].as_str().unwrap_or_default())),
    ]);
    let at = phase.and_then(|phase| PHASES.iter().position(|known| *known == phase));
    let steps = PHASES.iter().enumerate().flat_map(|(n, phase)| {
        let (mark, style) = match at {
            Some(at) if n < at && !view.is_unknown() => ("✓", colour(Color::Green)),
            Some(at) if n < at => ("✓", Style::new()),
            Some(at) if n == at => ("▶", mood(view)),
            _ => ("·", Style::new().add_modifier(Modifier::DIM)),
        };
        [Span::styled(format!("{mark} {}", words(*phase)), style), Span::raw("  ")]
    });
    frame.render_widget(Paragraph::new(vec![title, Line::from_iter(steps)]), area);
}

/// Where it is, as far as that is known.
fn title_of(view: &View) -> String {
    let phase = view.phase().map_or("", words);
    if view.is_unknown() { format!("{phase}?") } else { phase.to_owned() }
}

/// What to do now.
fn advice(view: &View) -> String {
    if view.is_lost {
        return "The server doesn't answer; what you see is what was known last. Trying again.".to_owned();
    }
    let waiting = &view.detail["progress"]["waiting"];
    if let (Some(code), Some(message)) = (waiting["code"].as_str(), waiting["message"].as_str()) {
        return format!("It is waiting: {code}: {message}. It continues automatically when this is fixed.");
    }
    let text = match view.phase() {
        Some(PhaseKind::Scheduled) => "Waiting for the migration host.",
        Some(PhaseKind::Synced) if !view.is_ready() => "Its host hasn't said yet whether it is ready.",
        Some(PhaseKind::Synced) => "Ready: stop the application's writes on the source, then press c to cut over.",
        Some(PhaseKind::CuttingOver | PhaseKind::Finalizing) => "Keep the application's writers stopped.",
        Some(PhaseKind::Paused) => "Paused: press p to continue, before the source's oplog has moved too far.",
        _ => "Nothing to do: the application continues with the source.",
    };
    let back = view.events.iter().rev().find(|event| event["kind"] == "failure");
    match (view.phase(), back.and_then(|event| event["message"].as_str())) {
        (Some(PhaseKind::Synced), Some(reason)) => format!("The last cutover was rolled back: {reason}. {text}"),
        _ => text.to_owned(),
    }
}

fn draw_facts(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let last = |line: &VecDeque<u64>| line.back().copied().unwrap_or_default();
    let lag = view.detail["lagTimeSeconds"].as_i64().map_or_else(|| "-".to_owned(), |lag| format!("{lag} s"));
    let left = view.detail["expiresAt"].as_str().and_then(Timestamp::parse_rfc3339).map(|until| {
        let seconds = until.seconds_since(Timestamp::now()).max(0);
        format!("{} h {} min", seconds / 3600, seconds / 60 % 60)
    });
    let host = view.detail["migrationHosts"][0].as_str().unwrap_or_default();
    let total = view.count("bytesTotal").max(view.count("bytesCopied"));
    let facts = [
        ("copied", format!("{} of {}", HumanBytes(view.count("bytesCopied")), HumanBytes(total))),
        ("documents", HumanCount(view.count("documentsCopied")).to_string()),
        ("copy rate", format!("{}/s", HumanBytes(last(&view.copied)))),
        ("indexes", format!("{} of {}", view.count("indexesBuilt"), view.count("indexesTotal"))),
        ("lag", lag),
        ("changes applied", HumanCount(view.count("eventsApplied")).to_string()),
        ("change rate", format!("{}/s", HumanCount(last(&view.applied)))),
        ("spool", HumanBytes(view.count("spoolBytes")).to_string()),
        ("host", format!("{host}, reported {}", report_age(&view.detail))),
        ("time for the cutover", left.unwrap_or_else(|| "-".to_owned())),
    ];
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
    for (area, facts) in [(left, &facts[..5]), (right, &facts[5..])] {
        let lines = facts.iter().map(|(name, value)| {
            Line::from(vec![
                Span::styled(format!("{name:21}"), Style::new().add_modifier(Modifier::DIM)),
                Span::styled(value.clone(), Style::new().add_modifier(Modifier::BOLD)),
            ])
        });
        frame.render_widget(Paragraph::new(Vec::from_iter(lines)).block(Block::new().borders(Borders::TOP)), area);
    }
}

fn draw_lines(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let [left, middle, right] = Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
    for (area, title, line) in
        [(left, "copy, bytes/s", &view.copied), (middle, "changes/s", &view.applied), (right, "lag, s", &view.lags)]
    {
        let width = usize::from(area.width.saturating_sub(2));
        let shown: Vec<u64> = line.iter().skip(line.len().saturating_sub(width)).copied().collect();
        let block = Block::bordered().title(title);
        frame.render_widget(Sparkline::default().block(block).style(colour(Color::Cyan)).data(&shown), area);
    }
}

fn draw_namespaces(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let all = view.detail["progress"]["namespaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines = all.iter().map(|one| {
        let number = |name: &str| one[name].as_u64().unwrap_or_default();
        let (copied, total) = (number("bytesCopied"), number("bytesTotal"));
        let share = if total == 0 { 1.0 } else { (copied as f64 / total as f64).min(1.0) };
        let name = one["namespace"].as_str().unwrap_or_default();
        Line::from(format!(
            "{:>5}  {name}  {} of {}",
            percent(share),
            HumanBytes(copied),
            HumanBytes(total.max(copied))
        ))
    });
    let block = Block::new().borders(Borders::TOP).title("namespaces, the largest first");
    frame.render_widget(Paragraph::new(Vec::from_iter(lines)).block(block), area);
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let lines = view.events.iter().rev().map(|event| {
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        Line::from(format!("{}  {:9} {}", text("time"), text("kind"), text("message")))
    });
    let block = Block::new().borders(Borders::TOP).title("events, newest first");
    frame.render_widget(Paragraph::new(Vec::from_iter(lines)).block(block), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let pause = if view.can_resume() { "p resume" } else { "p pause" };
    let text = format!(" c cut over   {pause}   l load   q leave this view, the migration continues   {}", view.said);
    frame.render_widget(Paragraph::new(text).style(Style::new().add_modifier(Modifier::REVERSED)), area);
}

fn draw_question(frame: &mut Frame<'_>, view: &View) {
    let lines = match &view.asking {
        Asking::Nothing => return,
        Asking::Pause if view.can_resume() => vec![Line::from("Continue where it was?  y yes   any other key no")],
        Asking::Pause => vec![
            Line::from("Stop where it is, to continue later?"),
            Line::from("The source's oplog moves on meanwhile."),
            Line::from("y yes   any other key no"),
        ],
        Asking::Load => vec![
            Line::from(format!("How hard may the copy go? Now: {}", view.limits())),
            Line::from("1 the kindest   3 as usual   5 all that the clusters give"),
            Line::from("1 to 5 sets it   Esc: as it is"),
        ],
        Asking::CutOver(typed) => vec![
            Line::from("The application's writers are stopped, background jobs included?"),
            Line::from("Users and roles that it needs exist on the destination?"),
            Line::from(format!("Then type the destination's name, {}, and press Enter.", view.destination())),
            Line::from(Span::styled(format!("> {typed}_"), Style::new().add_modifier(Modifier::BOLD))),
            Line::from("Esc: not now"),
        ],
    };
    let height = lines.len() as u16 + 2;
    let [area] = Layout::vertical([Constraint::Length(height)]).flex(Flex::Center).areas(frame.area());
    let [area] = Layout::horizontal([Constraint::Max(70)]).flex(Flex::Center).areas(area);
    frame.render_widget(Clear, area);
    let title = if view.asking == Asking::Load { "load level" } else { "are you sure?" };
    let block = Block::bordered().title(title).border_style(colour(Color::Yellow));
    frame.render_widget(Paragraph::new(lines).alignment(Alignment::Left).wrap(Wrap { trim: true }).block(block), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    #[test]
    fn a_view_is_drawn_at_any_size() {
        let mut view = View::default();
        let detail = json!({
            "id": "0123456789abcdef01234567", "phase": "synced", "readyForCutover": true, "lagTimeSeconds": 1,
            "source": {"clusterName": "old"}, "destination": {"clusterName": "new"}, "migrationHosts": ["mover1"],
            "expiresAt": "2030-01-01T00:00:00Z", "reportAgeSeconds": 1,
            "progress": {"bytesCopied": 5, "bytesTotal": 10, "namespaces": [{"namespace": "app.c", "bytesTotal": 10}]},
        });
        let event = json!({"time": "2026-01-01T00:00:00Z", "kind": "created", "message": "on host mover1"});
        for _ in 0..500 {
            view.update(detail.clone(), vec![event.clone(); 20]);
        }
        for asking in [Asking::Nothing, Asking::Pause, Asking::Load, Asking::CutOver("ne".to_owned())] {
            view.asking = asking;
            for (width, height) in [(1, 1), (10, 5), (80, 24), (200, 60)] {
                let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
                terminal.draw(|frame| draw(frame, &view)).expect("draws");
                let text: String =
                    terminal.backend().buffer().content().iter().map(ratatui::buffer::Cell::symbol).collect();
                assert!(width < 80 || text.contains("old → new") && text.contains("SYNCED"), "{text}");
            }
        }
    }

    fn drawn(view: &View) -> (String, Vec<Color>) {
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).expect("a terminal");
        terminal.draw(|frame| draw(frame, view)).expect("draws");
        let cells = terminal.backend().buffer().content();
        (cells.iter().map(ratatui::buffer::Cell::symbol).collect(), cells.iter().map(|cell| cell.fg).collect())
    }

    #[test]
    fn what_others_chose_does_nothing_to_the_terminal() {
        let mut view = View::default();
        let hostile = "a\u{202e}b\u{1b}[2Jc\u{200b}\nd";
        let waiting = json!({"code": "SERVER_ERROR", "message": hostile});
        let progress = json!({"waiting": waiting, "namespaces": [{"namespace": hostile, "bytesTotal": 10}]});
        let detail = json!({"phase": "copying", "source": {"clusterName": hostile}, "progress": progress});
        view.update(detail, vec![json!({"kind": "failure", "message": hostile})]);
        let (text, _) = drawn(&view);
        assert!(!text.contains(['\u{202e}', '\u{1b}', '\u{200b}']), "{text:?}");
        assert!(text.matches("a\\u{202e}b\\u{1b}[2Jc").count() >= 4, "{text}");
    }

    #[test]
    fn nothing_is_green_of_a_host_that_is_silent() {
        let mut view = View::default();
        let mut detail = json!({
            "id": "0123456789abcdef01234567", "phase": "synced", "readyForCutover": true, "lagTimeSeconds": 0,
            "source": {"clusterName": "old"}, "destination": {"clusterName": "new"}, "migrationHosts": ["mover1"],
            "reportAgeSeconds": 1, "progress": {},
        });
        view.update(detail.clone(), Vec::new());
        let (text, colours) = drawn(&view);
        assert!(text.contains("SYNCED ") && colours.contains(&Color::Green), "{text}");
        detail["readyForCutover"] = json!(false);
        detail["lagTimeSeconds"] = json!(null);
        detail["reportAgeSeconds"] = json!(43);
        let message = "the migration host mover1 has reported nothing for 43 s";
        detail["progress"] = json!({"waiting": {"code": "HOST_SILENT", "message": message}});
        view.update(detail, Vec::new());
        let (text, colours) = drawn(&view);
        assert!(!colours.contains(&Color::Green), "{text}");
        for wanted in ["SYNCED?", "HOST_SILENT", message, "mover1, reported 43 s ago"] {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
    }
}
