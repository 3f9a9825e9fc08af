//! The page, as a browser without a network shows it.

use super::world::{Ended, World};
use super::{bench, with_scratch};
use serde_json::Value;
use std::fs;

/// Runs Chromium on a page of the world, which cannot reach anything but files.
fn chromium(world: &World, page: &str, more: &[&str]) -> Ended {
    let mut command = world.bare("chromium");
    // The sandbox needs rights that not every place where tests run gives; the page is ours.
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--hide-scrollbars",
    ]);
    command.args([
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--proxy-server=127.0.0.1:9",
        "--window-size=1440,3000",
    ]);
    command.arg(format!("--user-data-dir={}", world.path("chromium").display())).args(more);
    command.arg(format!("file://{}", world.path(page).display()));
    let ended = Ended::of(command.output());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// What the page's console was told.
fn console(ended: &Ended) -> Vec<&str> {
    ended.stderr.lines().filter(|line| line.contains("CONSOLE")).collect()
}

fn screenshot_len(world: &World, page: &str) -> u64 {
    let name = format!("--screenshot={}", world.path("shot.png").display());
    chromium(world, page, &[&name]);
    let shot = world.read("shot.png");
    assert!(shot.starts_with(b"\x89PNG"), "{page} was not painted");
    shot.len() as u64
}

/// What is between a begin and the next end, each time.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    text.split(begin).skip(1).map(|rest| rest.split(end).next().expect("there is a first part")).collect()
}

fn count(value: &Value) -> usize {
    value.as_array().expect("a list").len()
}

#[test]
fn a_browser_without_network_shows_every_chart_with_its_table() {
    let world = with_scratch(World::new());
    let earlier =
        world.run(&[&["--json"], &super::arguments(&["--no-repository", "--change-rates=1"])[..]].concat());
    world.write("earlier.json", earlier.stdout.as_bytes());
    let more =
        ["--fleet=40x200GiB", "--window=8h", "--change-rates=0,1", "--compare=earlier.json", "--threads=2"];
    let report = bench(&world, &[&["--no-repository", "--html=page.html"], &more[..]].concat());

    let ended = chromium(&world, "page.html", &["--dump-dom"]);
    assert_eq!(console(&ended), [""; 0], "the page had something to complain of");
    let dom = &ended.stdout;
    for part in ["<script", "http:", "https:", "url(", "@import", "NaN", "inf "] {
        assert!(!dom.contains(part), "{part:?} is in the page");
    }
    let charts = between(dom, "<svg viewBox", "</svg>");
    let charts: Vec<&str> = charts.into_iter().filter(|chart| chart.contains("role=\"img\"")).collect();
    let ids = ["chart-stages", "chart-scaling", "chart-latency", "chart-runs"];
    assert_eq!(charts.len(), ids.len());
    for (chart, id) in charts.iter().zip(ids) {
        for part in ["title", "desc"] {
            let text = between(chart, &format!("<{part} id=\"{id}-"), "</")[0];
            assert!(text.len() > 20, "{id} has no {part}");
        }
    }
    // A row of each chart is a row of its table.
    let rows = [
        count(&report["stages"]) / 2,
        count(&report["stages"]) / 2,
        count(&report["requests"]),
        count(&report["runs"]),
    ];
    for ((section, chart), rows) in ["stages", "scaling", "requests", "runs"].iter().zip(&charts).zip(rows) {
        let section = between(dom, &format!("<section id=\"{section}\">"), "</section>")[0];
        assert_eq!(section.matches("<tr><th scope=\"row\">").count(), rows, "{section}");
        assert_eq!(chart.matches("class=\"name\"").count(), rows, "{chart}");
    }
    let fleet = between(dom, "<section id=\"fleet\">", "</section>")[0];
    assert!(fleet.contains("40 × 200.0 GiB, first") && fleet.contains("The window"), "{fleet}");
    let comparison = between(dom, "<section id=\"comparison\">", "</section>")[0];
    assert!(comparison.contains("full backup") && comparison.contains("unknown"), "{comparison}");

    world.write("blank.html", b"<!DOCTYPE html><title>blank</title>");
    let (blank, page) = (screenshot_len(&world, "blank.html"), screenshot_len(&world, "page.html"));
    assert!(page > 4 * blank, "the page is {page} bytes of PNG, and nothing is {blank}");
}

#[test]
fn a_page_that_asked_for_something_would_be_noticed() {
    let world = World::new();
    let page = "<!DOCTYPE html><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'\">\
                <img src=\"http://127.0.0.1:9/x.png\"><p>text</p>";
    world.write("page.html", page.as_bytes());
    let ended = chromium(&world, "page.html", &["--dump-dom"]);
    assert_eq!(console(&ended).len(), 1, "{ended:?}");
}

#[test]
fn only_pages_are_replaced() {
    let world = with_scratch(World::new());
    world.write("disk.raw", b"a disk");
    let refused = world.run(&["bench", "--no-repository", "--html", "disk.raw"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("disk.raw exists and is no page"), "{refused:?}");
    assert_eq!(world.read("disk.raw"), b"a disk");
    world.write("old.html", b"<!DOCTYPE html>old");
    bench(&world, &["--no-repository", "--change-rates=0", "--html=old.html"]);
    assert!(fs::metadata(world.path("old.html")).unwrap().len() > 10_000);
}
