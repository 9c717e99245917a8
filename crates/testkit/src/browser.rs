//! A real browser: Debian's Chromium, headless, driven over WebDriver.

use crate::{Error, tool};
use fantoccini::{Client, ClientBuilder, Locator, elements::Element, wd::WebDriverCompatibleCommand};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// What counts as accessible.
const RULES: &str =
    "{runOnly: {type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}}";

/// A browser with a profile of its own; ends when dropped.
pub struct Browser {
    client: Client,
    axe: String,
    driver: Child,
    profile: tempfile::TempDir,
}

/// A command of the browser's own protocol.
#[derive(Debug)]
struct Devtools(String, Value);

impl WebDriverCompatibleCommand for Devtools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/chromium/send_command_and_get_result", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({"cmd": self.0, "params": self.1}).to_string()))
    }
}

impl Browser {
    /// Starts one; `None`, and said, where there is no Chromium.
    pub async fn start(test: &str) -> Result<Option<Self>, Error> {
        if !tool::have(test, &["chromium", "chromedriver", "npm"]) {
            return Ok(None);
        }
        let axe = tool::axe()?;
        let profile = tempfile::Builder::new().prefix("limosa-browser-").tempdir()?;
        let mut driver = Command::new("chromedriver")
            .args(["--port=0", "--allowed-ips=127.0.0.1"])
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = driver.stdout.take().ok_or("chromedriver has no output")?;
        let mut lines = BufReader::new(output).lines();
        let port = loop {
            let line = lines.next().ok_or("chromedriver ended")??;
            if let Some((_, port)) = line.trim_end_matches('.').rsplit_once("started successfully on port ") {
                break port.to_owned();
            }
        };
        // Read on, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let data = profile.path().join("data");
        let options = json!({
            "goog:chromeOptions": {
                "binary": tool::find("chromium"),
                "args": [
                    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync",
                    "--disable-dev-shm-usage", "--window-size=1200,900", format!("--user-data-dir={}", data.display()),
                ],
            },
        });
        let Value::Object(capabilities) = options else { return Err("no capabilities".into()) };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(capabilities).connect(&format!("http://127.0.0.1:{port}")).await;
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                let _ = driver.kill();
                return Err(error.into());
            }
        };
        Ok(Some(Self { client, axe, driver, profile }))
    }

    /// Opens an address.
    pub async fn open(&self, url: &str) -> Result<(), Error> {
        Ok(self.client.goto(url).await?)
    }

    /// The element at a CSS selector, waiting for it to be there.
    pub async fn at(&self, css: &str) -> Result<Element, Error> {
        let wait = self.client.wait().at_most(PATIENCE).every(Duration::from_millis(50));
        wait.for_element(Locator::Css(css)).await.map_err(|e| format!("{css}: {e}").into())
    }

    /// Clicks what a CSS selector names, once it is there.
    pub async fn click(&self, css: &str) -> Result<(), Error> {
        Ok(self.at(css).await?.click().await?)
    }

    /// Clicks the button or link with this text.
    pub async fn press(&self, text: &str) -> Result<(), Error> {
        let path = format!("//*[self::button or self::a][normalize-space(.)='{text}']");
        let wait = self.client.wait().at_most(PATIENCE).every(Duration::from_millis(50));
        let element = wait.for_element(Locator::XPath(&path)).await.map_err(|e| format!("{text}: {e}"))?;
        Ok(element.click().await?)
    }

    /// Types into a field.
    pub async fn fill(&self, css: &str, text: &str) -> Result<(), Error> {
        let element = self.at(css).await?;
        element.clear().await?;
        Ok(element.send_keys(text).await?)
    }

    /// What the page shows.
    pub async fn text(&self) -> Result<String, Error> {
        let text = self.script("return document.body.innerText").await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page shows `wanted`.
    pub async fn sees(&self, wanted: &str) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let text = self.text().await?;
            if text.contains(wanted) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                self.screenshot("never-came").await?;
                return Err(format!("{wanted:?} never came; the page shows {text}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs a script in the page.
    pub async fn script(&self, script: &str) -> Result<Value, Error> {
        Ok(self.client.execute(script, Vec::new()).await?)
    }

    /// Waits until a script in the page returns true.
    pub async fn until(&self, script: &str) -> Result<(), Error> {
        let began = Instant::now();
        while self.script(script).await? != true {
            if began.elapsed() > PATIENCE {
                return Err(format!("never came true: {script}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Result<Value, Error> {
        Ok(self.client.issue_cmd(Devtools(command.to_owned(), parameters)).await?)
    }

    /// Cuts the page off from every server, or lets it back.
    pub async fn offline(&self, offline: bool) -> Result<(), Error> {
        self.devtools("Network.enable", json!({})).await?;
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        self.devtools("Network.emulateNetworkConditions", conditions).await.map(drop)
    }

    /// Light or dark.
    pub async fn dark(&self, dark: bool) -> Result<(), Error> {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": value}, {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.devtools("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// The window's size in CSS pixels.
    pub async fn size(&self, width: u32, height: u32) -> Result<(), Error> {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await.map(drop)
    }

    /// Keeps what is seen, as `target/screenshots/NAME.png`.
    pub async fn screenshot(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = tool::target().join("screenshots");
        std::fs::create_dir_all(&dir)?;
        let file = dir.join(format!("{name}.png"));
        std::fs::write(&file, self.client.screenshot().await?)?;
        Ok(file)
    }

    /// What axe-core finds wrong, in light and in dark; keeps a picture of each.
    pub async fn look(&self, name: &str) -> Result<(), Error> {
        let mut found = Vec::new();
        for (dark, scheme) in [(false, "light"), (true, "dark")] {
            self.dark(dark).await?;
            self.screenshot(&format!("{name}-{scheme}")).await?;
            self.client.execute(&format!("if (!window.axe) {{ {} }}", self.axe), Vec::new()).await?;
            let run = format!(
                "const done = arguments[arguments.length - 1];
                 axe.run(document, {RULES}).then((r) => done(r.violations.map((v) =>
                     `${{v.id}}: ${{v.help}}: ${{v.nodes.map((n) => n.html + ' ' + n.failureSummary).join(' | ')}}`)),
                     (e) => done([String(e)]));"
            );
            let violations = self.client.execute_async(&run, Vec::new()).await?;
            let violations = violations.as_array().cloned().ok_or("axe-core gave no list")?;
            found.extend(violations.iter().map(|v| format!("{scheme}: {}", v.as_str().unwrap_or_default())));
        }
        self.dark(false).await?;
        if found.is_empty() { Ok(()) } else { Err(format!("{name} is not accessible: {}", found.join("\n")).into()) }
    }

    /// Whether something is wider than the window.
    pub async fn overflows(&self) -> Result<bool, Error> {
        let found = self.script("return document.documentElement.scrollWidth > window.innerWidth").await?;
        Ok(found.as_bool().unwrap_or(true))
    }

    /// What the page logged as an error, refused by its policy included.
    pub async fn end(self) -> Result<(), Error> {
        Ok(self.client.clone().close().await?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser when it is told to end.
        let _ = Command::new("kill").arg(self.driver.id().to_string()).status();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) && matches!(self.driver.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        // A busy driver may be killed before it has told its browser, which names this directory.
        let _ = Command::new("pkill").args(["-KILL", "-f"]).arg(self.profile.path()).status();
    }
}
