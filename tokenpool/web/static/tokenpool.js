// What pages do beyond what the server sends: the reader's own time, the forms' proof, and a word where the line is cut.
(function () {
  "use strict";

  function own(root) {
    root.querySelectorAll("[datetime]:not([data-own])").forEach(function (element) {
      var moment = new Date(element.getAttribute("datetime"));
      if (isNaN(moment)) { return; }
      element.dataset.own = element.textContent;
      element.title = element.getAttribute("datetime");
      element.textContent = element.classList.contains("hour")
        ? moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: element.textContent.length > 5 ? "2-digit" : undefined })
        : moment.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
    });
  }

  // Somebody who types, or has opened something, in a part that is live should not lose it.
  function busy(element) {
    var active = document.activeElement;
    var typing = active && element.contains(active) && active.matches("input, select, textarea");
    return Boolean(typing);
  }

  // What is drawn once for all readers holds no proof of any of them: each fills in their own.
  function prove(root) {
    var meta = document.querySelector('meta[name="csrf-token"]');
    root.querySelectorAll('input[name="csrf_token"]').forEach(function (field) { if (meta) { field.value = meta.content; } });
  }

  function say(text) {
    var place = document.getElementById("connection");
    if (place && place.textContent !== text) { place.textContent = text; }
  }

  function stick(log) {
    if (log.dataset.follow !== "no") { log.scrollTop = log.scrollHeight; }
  }

  document.addEventListener("htmx:config:request", function (event) {
    var meta = document.querySelector('meta[name="csrf-token"]');
    var request = event.detail && event.detail.ctx && event.detail.ctx.request;
    if (meta && request && request.headers) { request.headers["X-CSRF-Token"] = meta.content; }
  });
  document.addEventListener("htmx:sse:before:message", function (event) {
    if (event.target.id === "live" && busy(event.target)) { event.preventDefault(); }
  });
  document.addEventListener("htmx:sse:after:connection", function () { say(""); });
  document.addEventListener("htmx:sse:error", function (event) {
    if (event.detail && event.detail.status === 401) { location.reload(); return; }
    say("The connection is lost; trying again …");
  });
  document.addEventListener("submit", function (event) { prove(event.target); }, true);
  document.addEventListener("htmx:sse:after:message", function () {
    own(document);
    document.querySelectorAll("pre.log").forEach(stick);
  });
  // A token that is finished, or gone, has another page than one that runs.
  document.addEventListener("over", function () { location.reload(); });
  document.addEventListener("htmx:after:swap", function () { own(document); });
  document.addEventListener("scroll", function (event) {
    var log = event.target;
    if (log.matches && log.matches("pre.log")) {
      log.dataset.follow = log.scrollHeight - log.scrollTop - log.clientHeight < 40 ? "yes" : "no";
    }
  }, true);
  document.addEventListener("change", function (event) {
    var box = event.target;
    if (box.matches && box.matches("input[data-all]")) {
      document.querySelectorAll('input[name="ids"]').forEach(function (each) { each.checked = box.checked; });
    }
    if (box.matches && box.matches("select[data-go]")) { box.form.requestSubmit(); }
  });

  function ready() {
    own(document);
    document.querySelectorAll("pre.log").forEach(stick);
    // On a small screen the chart is wider than the page: now is at its right end.
    document.querySelectorAll(".gantt .scroll").forEach(function (chart) { chart.scrollLeft = chart.scrollWidth; });
  }
  if (document.readyState === "loading") { document.addEventListener("DOMContentLoaded", ready); } else { ready(); }
}());
