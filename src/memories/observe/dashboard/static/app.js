// Draws what the server sends, and nothing else: no state that a reload would lose matters.
"use strict";

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
const query = (extra) => {
  const words = new URLSearchParams(extra);
  if (token) words.set("token", token);
  return words.toString() ? "?" + words : "";
};

// Everything from the store is text, never markup.
function cell(content, kind) {
  const made = document.createElement("td");
  if (kind) made.className = kind;
  if (content instanceof Node) made.append(content); else made.textContent = content;
  return made;
}
function rows(id, items, cells) {
  const body = $(id);
  const held = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  body.replaceChildren(...items.map((item) => {
    const row = document.createElement("tr");
    row.append(...cells(item));
    return row;
  }));
  // A row that has the focus is drawn anew: the focus must stay on its key.
  if (held !== null) for (const one of body.querySelectorAll("button"))
    if (one.dataset.key === held) one.focus();
}
function terms(id, pairs) {
  $(id).replaceChildren(...pairs.map(([name, value]) => {
    const group = document.createElement("div"), term = document.createElement("dt"), fact = document.createElement("dd");
    term.textContent = name; fact.textContent = value; group.append(term, fact);
    return group;
  }));
}
function keyButton(key) {
  const made = document.createElement("button");
  made.type = "button"; made.className = "link"; made.textContent = key; made.dataset.key = key;
  made.title = key;
  made.addEventListener("click", () => { $("key").value = key; explain(key); });
  return made;
}
function bar(name, value) {
  const made = document.createElement("span");
  const track = document.createElement("span"), fill = document.createElement("span");
  track.className = "bar";
  fill.style.width = Math.min(100, value) + "%";
  fill.style.background = `var(--${name})`;
  track.append(fill);
  made.append(track, percent(value));
  return made;
}

function drawNow(now) {
  const tiers = ["hot_hits", "warm_hits", "cold_hits", "glacier_hits", "misses"];
  const latest = (name) => { const column = points.columns[name]; return column ? column[column.length - 1] : null; };
  terms("now", [
    ["Reads", rate(whole)(rateNow(tiers))],
    ["Hit rate", percent(latest("hit_rate"))],
    ["Stored", rate(size)(rateNow(["stored_bytes"]))],
    ["Moved", rate(size)(rateNow(CAUSES.map((cause) => `moved_bytes_${cause}`)))],
    ["RAM of the process", size(now.rss_bytes)],
    ["Keys", whole(Object.values(now.tiers).reduce((sum, tier) => sum + tier.keys, 0))],
    ["Failures", whole(now.failures)],
  ]);
}

function drawTables(now) {
  rows("tier-rows", TIERS.filter((name) => now.tiers[name]), (name) => {
    const tier = now.tiers[name];
    return [cell(name), cell(bar(name, tier.usage_percent)), cell(size(tier.used_bytes), "n"),
      cell(size(tier.configured_bytes), "n"), cell(whole(tier.keys), "n"), cell(whole(tier.hits), "n"),
      cell(tier.medium)];
  });
  const prefetch = now.prefetch ? Object.entries(now.prefetch).map(([name, count]) => `${whole(count)} ${name}`).join(", ") : "none";
  const facts = [["Hit rate, all in all", percent(now.hit_rate_percent)], ["Reads", whole(now.reads)],
    ["Misses", whole(now.misses)], ["Stored", `${whole(now.stored)} (${size(now.stored_bytes)})`], ["Prefetch", prefetch]];
  for (const [name, written] of Object.entries(now.written))
    if (written.compression !== null) facts.push([`Compression, ${name}`, written.compression.toFixed(1) + " ×"]);
  if (now.latest_failure) facts.push(["Latest failure", now.latest_failure]);
  terms("facts", facts);
  rows("hot-rows", now.hot_keys.slice(0, 20), (one) => [cell(keyButton(one.key), "key"), cell(one.tier),
    cell(size(one.size), "n"), cell(whole(one.hits), "n"), cell(one.rate.toFixed(1), "n")]);
  rows("move-rows", now.latest_moves.slice(-20).reverse(), (one) => [
    cell(clock(one.at)), cell(keyButton(one.key), "key"),
    cell(`${one.source} → ${one.target}`), cell(one.cause), cell(size(one.size), "n")]);
  rows("latency-rows", now.latencies, (one) => [cell(one.operation), cell(one.tier), cell(whole(one.count), "n"),
    cell(seconds(one.p50), "n"), cell(seconds(one.p90), "n"), cell(seconds(one.p99), "n")]);
  const pinned = now.pinned_keys || [];
  $("pins").hidden = pinned.length === 0;
  rows("pin-rows", pinned, (one) => [cell(keyButton(one.key), "key"), cell(one.tier), cell(size(one.size), "n")]);
  $("nodes").hidden = !now.nodes;
  if (now.nodes) rows("node-rows", Object.entries(now.nodes), ([name, state]) => [
    cell(name), cell(state.online ? (state.up_to_date ? "online" : "catching up") : "offline"),
    cell(whole(state.keys), "n"), cell(percent(state.memory_usage), "n"),
    cell(seconds(state.latency_seconds), "n"), cell(state.last_error || "")]);
}

// A store whose program has not enabled the analytics: its counters give the same columns.
function sampleOf(now) {
  const made = { misses: now.misses, stored_bytes: now.stored_bytes, rss_bytes: now.rss_bytes };
  for (const [name, tier] of Object.entries(now.tiers)) {
    made[`${name}_usage`] = tier.usage_percent; made[`${name}_used_bytes`] = tier.used_bytes; made[`${name}_hits`] = tier.hits;
  }
  for (const move of now.moves) made[`moved_bytes_${move.cause}`] = (made[`moved_bytes_${move.cause}`] || 0) + move.bytes;
  for (const [name, written] of Object.entries(now.written)) made[`${name}_written_bytes`] = written.stored_bytes;
  return made;
}

let began;  // When the series on the page began; undefined before the first document.
async function take(now) {
  if (now.analytics_began !== began) {
    began = now.analytics_began;
    const series = began ? await (await fetch("series" + query())).json() : {};
    if (series.timestamps) fillPoints(began, series);
  }
  if (now.sample) addPoint(began + now.sample.timestamps, now.sample); else addPoint(now.at, sampleOf(now));
}

let mayAct = false, paused = false, said = "";
function say(text) { if (text !== said) { said = text; $("state").textContent = text; } }
async function show(now) {
  if (now.error) return say(now.error);
  $("store").textContent = now.store || "memories";
  document.title = now.store ? `${now.store} · memories` : "memories";
  say(`${now.state}, pid ${now.pid} on ${now.host}`);
  mayAct = now.may_act && token !== "";
  await take(now);
  if (paused) return;
  drawNow(now);
  drawTables(now);
  drawCharts(now.tiers, Number($("range").value));
}
let latest = Promise.resolve();  // One document after the other, also while the series are fetched.
const events = new EventSource("events" + query({ interval: new URLSearchParams(location.search).get("interval") || "0.5" }));
events.onmessage = (event) => { latest = latest.then(() => show(JSON.parse(event.data))); };
events.addEventListener("closed", () => { events.close(); say("closed: the manager has ended"); });
events.onerror = () => { if (events.readyState !== EventSource.CLOSED) say("not connected, trying again"); };

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
});
async function explain(key) {
  const answer = await fetch("explain" + query({ key }));
  const found = await answer.json();
  $("explanation").textContent = found.text || found.error;
  $("actions").hidden = !(answer.ok && mayAct);
}
$("explain").addEventListener("submit", (event) => { event.preventDefault(); explain($("key").value); });
$("actions").addEventListener("click", async (event) => {
  const action = event.target.dataset.action;
  if (!action) return;
  const key = $("key").value;
  const answer = await fetch("act", {
    method: "POST", headers: { "Content-Type": "application/json", Authorization: "Bearer " + token },
    body: JSON.stringify({ action, key }),
  });
  if (answer.ok) explain(key); else $("explanation").textContent = (await answer.json()).error;
});
