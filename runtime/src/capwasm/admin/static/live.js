// Tells when something changed on the other side.  Everything works without it.
"use strict";
const { ask, stamp } = document.body.dataset;
const stale = document.getElementById("stale");
const touched = () => [...document.querySelectorAll("main input, main textarea, main select")].some(
  (field) => field.type !== "hidden" && (field === document.activeElement
    || (field.type === "checkbox" ? field.checked !== field.defaultChecked
      : "defaultValue" in field && field.value !== field.defaultValue)));

async function look() {
  if (document.hidden || !stale.hidden) return;
  let answer;
  try {
    answer = await fetch(ask, { cache: "no-store", redirect: "error" });
  } catch {
    return;
  }
  const over = answer.status === 403;  // the session has ended
  if (!over && (!answer.ok || (await answer.text()) === stamp)) return;
  // Nobody loses what he has typed, or the place where he reads.
  if (touched() || scrollY > 200 || document.querySelector("details[open]")) stale.hidden = false;
  else location.reload();
}

setInterval(look, 4000);
