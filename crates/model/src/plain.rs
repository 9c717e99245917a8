//! Texts that others chose, made fit to be shown: a server's error message, an agent's report, a host's name.

use std::fmt::Write;

/// How long a message may be, in characters.
pub const MESSAGE: usize = 2_000;

/// How long a name may be, in characters.
pub const NAME: usize = 300;

/// Whether a terminal, a log or a page does something with it besides showing it: control characters, those that turn the
/// direction of writing, and those that can't be seen.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// `text` with what isn't shown as it is written out, as `\u{1b}`; at most `most` characters of it, the end told. A new
/// line stays one.
pub fn plain(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    for (at, c) in text.chars().enumerate() {
        if at == most {
            let _ = write!(shown, "… ({} bytes)", text.len());
            break;
        }
        match c {
            '\n' => shown.push('\n'),
            c if is_hostile(c) => {
                let _ = write!(shown, "{}", c.escape_unicode());
            }
            c => shown.push(c),
        }
    }
    shown
}

/// The same on one line, for a log: new lines are written out too, so that no text can pass for another line.
pub fn one_line(text: &str, most: usize) -> String {
    plain(text, most).replace('\n', "\\n")
}

/// Makes `text` plain where it is.
pub fn make_plain(text: &mut String, most: usize) {
    if text.len() > most || text.chars().any(|c| c != '\n' && is_hostile(c)) {
        *text = plain(text, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_written_out() {
        for (text, expected) in [
            ("plain – ünïcode 日本 🐧\nsecond line", "plain – ünïcode 日本 🐧\nsecond line"),
            ("\u{1b}[2J\u{7}\r\t\u{0}", "\\u{1b}[2J\\u{7}\\u{d}\\u{9}\\u{0}"),
            ("a\u{202e}b\u{2066}c\u{feff}\u{9b}31m", "a\\u{202e}b\\u{2066}c\\u{feff}\\u{9b}31m"),
        ] {
            assert_eq!(plain(text, 100), expected);
        }
        assert_eq!(one_line("a\nERROR forged", 100), "a\\nERROR forged");
        let long = "x".repeat(10_000);
        assert_eq!(plain(&long, 10), "xxxxxxxxxx… (10000 bytes)");
        let mut own = long.clone();
        make_plain(&mut own, MESSAGE);
        assert!(own.len() < MESSAGE + 30);
        let again = own.clone();
        make_plain(&mut own, MESSAGE + 30);
        assert_eq!(own, again, "what is plain stays");
    }
}
