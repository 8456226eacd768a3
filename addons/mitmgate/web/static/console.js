// Keeps an open page up to date: how much time is left, and what waits. Without this script
// everything still works, after loading the page again. Texts of requests only ever arrive as HTML
// that the server has escaped; nothing here makes markup of a string.
"use strict";

const POLL = 10000; // milliseconds between two looks where there is no event stream
const SOON = 60; // seconds

const skew = Date.now() / 1000 - Number(document.body.dataset.now); // the clocks may differ
const announcement = document.getElementById("announce");

function announce(text) {
  announcement.textContent = text;
}

function countDown() {
  const now = Date.now() / 1000 - skew;
  for (const time of document.querySelectorAll("time[data-expires]")) {
    const left = Math.max(0, Math.floor(Number(time.dataset.expires) - now));
    const [hours, minutes, seconds] = [Math.floor(left / 3600), Math.floor(left / 60) % 60, left % 60];
    let text = `${seconds} s`;
    if (left >= 3600) text = `${hours} h ${minutes} min`;
    else if (left >= 60) text = `${minutes} min ${seconds} s`;
    if (left === 0) text = "expired";
    if (time.textContent !== text) time.textContent = text;
    time.classList.toggle("soon", left < SOON);
  }
}

async function ask(path) {
  const answer = await fetch(path, { credentials: "same-origin", cache: "no-store" });
  if (answer.status === 401) location.reload(); // signed out: the server shows the form
  return answer.ok ? answer : null;
}

// The queue: entries keep their place and their focus; what is new is told, not jumped to.
async function refreshQueue(queue) {
  const answer = await ask("/queue");
  if (!answer) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const before = new Map([...queue.querySelectorAll("li")].map((item) => [item.id, item]));
  const now = [...page.querySelectorAll("li")];
  const ids = new Set(now.map((item) => item.id));
  const added = now.filter((item) => !before.has(item.id));
  const gone = [...before.keys()].filter((id) => !ids.has(id));
  const list = queue.querySelector("ol");
  const focused = document.activeElement.closest("#queue li");

  if (!list || !now.length) {
    queue.replaceChildren(...page.body.childNodes);
  } else {
    for (const id of gone) before.get(id).remove();
    now.forEach((item, place) => {
      let kept = before.get(item.id);
      if (kept && kept.dataset.state !== item.dataset.state && !kept.contains(document.activeElement)) {
        kept.replaceWith(item);
        kept = item;
      }
      const wanted = kept || item;
      if (list.children[place] !== wanted) list.insertBefore(wanted, list.children[place] || null);
    });
  }
  if (focused && !focused.isConnected) document.getElementById("main").focus();
  countDown();
  document.title = document.title.replace(/^(\(\d+\) )?/, now.length ? `(${now.length}) ` : "");

  const told = added.map((item) => `New: ${item.querySelector("h2").textContent.trim()}.`);
  if (gone.length) told.push(gone.length === 1 ? "One request has gone." : `${gone.length} requests have gone.`);
  if (told.length) announce(`${told.join(" ")} ${now.length} waiting.`);
}

// One request: what is being written stays as it is, and a line says what has changed.
async function refreshHold(news) {
  const answer = await ask(`/api/holds/${encodeURIComponent(news.dataset.hold)}`);
  if (!answer) return;
  const { hold } = await answer.json();
  const state = `${hold.state} ${hold.approvals}`;
  if (state === news.dataset.state) return;
  news.dataset.state = state;
  const again = document.createElement("a");
  again.href = location.pathname;
  again.textContent = "Show it";
  news.replaceChildren(`This request is ${hold.state} now, with ${hold.approvals} of ${hold.quorum} approvals. `, again);
  news.hidden = false;
}

function follow(refresh) {
  let poll = 0;
  const look = () => refresh().catch(() => {}); // the next one may succeed
  const source = new EventSource("/events");
  source.addEventListener("holds", look);
  source.addEventListener("signed-out", () => location.reload());
  source.addEventListener("open", () => clearInterval(poll));
  source.addEventListener("error", () => {
    clearInterval(poll);
    poll = setInterval(look, POLL);
    look(); // perhaps it was refused because the session is over
  });
}

const live = document.querySelector("[data-live]");
if (live) follow(() => (live.dataset.live === "queue" ? refreshQueue(live) : refreshHold(live)));
countDown();
setInterval(countDown, 1000);
