// Filters the table of questions, and copies a passage's text to where it was given. Text is only ever set as text.
"use strict";
(() => {
  const questions = [...document.querySelectorAll("tbody.question")];
  const controls = [...document.querySelectorAll("#filters input, #filters select")];
  const shown = document.getElementById("shown");
  const words = new Map();

  function textOf(question) {
    if (!words.has(question)) words.set(question, question.rows[0].textContent.toLowerCase());
    return words.get(question);
  }

  function matches(question, control) {
    const value = control.value, data = question.dataset;
    if (!value) return true;
    if (control.name === "text") return value.toLowerCase().split(/\s+/).every((word) => textOf(question).includes(word));
    if (control.name === "slice") return data.slices.split(" ").includes(value);
    if (control.name === "change") return data.change === value;
    return data.right[Number(control.name)] === value;
  }

  function filter() {
    let count = 0;
    for (const question of questions) {
      const keep = controls.every((control) => matches(question, control));
      question.hidden = !keep;
      count += keep;
    }
    shown.textContent = `${count} of ${questions.length} questions`;
  }

  function choose(name, value) {
    for (const control of controls) control.value = control.name === name ? value : "";
    filter();
    document.getElementById("questions").scrollIntoView();
  }

  function fill(event) {
    if (!event.target.open) return;
    for (const place of event.target.querySelectorAll("[data-passage]:empty")) {
      place.textContent = document.getElementById(place.dataset.passage).textContent;
    }
  }

  for (const control of controls) control.addEventListener("input", filter);
  for (const button of document.querySelectorAll("button[data-filter]")) {
    button.addEventListener("click", () => choose(button.dataset.filter, button.value));
  }
  document.getElementById("all").addEventListener("click", () => choose("", ""));
  document.addEventListener("toggle", fill, true);
  document.documentElement.classList.add("scripted");
  filter();
})();
