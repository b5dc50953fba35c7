"use strict";

function start(section, viewer) {
  const rows = [...section.querySelectorAll(".strip tbody tr")];
  const images = rows.map((row) => [...row.querySelectorAll("img")]);
  const names = rows.map((row) => row.querySelector("th").textContent);
  const [latent, left, right, view, zoom, wipe] = ["latent", "left", "right", "view", "zoom", "wipe"].map((name) =>
    viewer.querySelector(`[name=${name}]`)
  );
  const desk = viewer.querySelector(".desk");
  const captions = viewer.querySelectorAll(".names span");
  const frame = viewer.querySelector(".frame");
  const stage = viewer.querySelector(".stage");
  const width = Number(stage.dataset.width);
  const height = Number(stage.dataset.height);
  const under = new Image();
  const over = new Image();
  const line = document.createElement("div");
  line.className = "line";
  stage.append(under, over, line);

  function show() {
    const column = Number(latent.value);
    const [first, second] = [Number(left.value), Number(right.value)];
    const difference = view.value !== "wipe";
    under.src = images[first][column].src;
    over.src = images[second][column].src;
    under.alt = `${names[first]}, latent ${column + 1}`;
    over.alt = difference
      ? `Difference of ${names[first]} and ${names[second]}, latent ${column + 1}, times ${view.value}`
      : `${names[second]}, latent ${column + 1}`;
    stage.classList.toggle("difference", difference);
    stage.style.filter = difference ? `brightness(${view.value})` : "";
    wipe.disabled = difference;
    captions[0].textContent = difference ? `|${names[first]} \u2212 ${names[second]}| \u00d7 ${view.value}` : names[first];
    captions[1].textContent = difference ? "" : names[second];
    images.forEach((row) => row.forEach((image, index) => image.classList.toggle("chosen", index === column)));
    cut();
  }

  function cut() {
    const share = Number(wipe.value);
    const visible = !wipe.disabled && share > 0 && share < 100;
    over.style.clipPath = wipe.disabled ? "" : `inset(0 0 0 ${share}%)`;
    line.style.left = `${share}%`;
    line.style.display = visible ? "" : "none";
    wipe.setAttribute(
      "aria-valuetext",
      `${share} percent ${names[Number(left.value)]}, ${100 - share} percent ${names[Number(right.value)]}`
    );
  }

  // To fit: small images by a whole factor, so that all their pixels are alike; large ones shrunk to the window
  function scale() {
    const room = desk.clientWidth;
    const most = Math.min(room, (window.innerHeight * 0.8 * width) / height) / width;
    const fit = most < 1 ? most : Math.max(1, Math.floor(Math.min(most, 640 / width)));
    const factor = zoom.value === "fit" ? fit : Number(zoom.value);
    stage.style.width = `${width * factor}px`;
    stage.style.height = `${height * factor}px`;
    stage.classList.toggle("pixelated", factor >= 1);
    const fits = width * factor <= room + 0.5;
    stage.style.touchAction = fits ? "pan-y" : "auto";
    frame.style.width = fits ? `${width * factor}px` : "";
    for (const part of [captions[0].parentElement, wipe.parentElement]) {
      part.style.maxWidth = frame.style.width;
    }
  }

  function drag(event) {
    const box = stage.getBoundingClientRect();
    wipe.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
    cut();
  }

  stage.addEventListener("pointerdown", (event) => {
    if (!wipe.disabled && event.button === 0 && (event.pointerType === "mouse" || stage.style.touchAction === "pan-y")) {
      stage.setPointerCapture(event.pointerId);
      drag(event);
      event.preventDefault();
    }
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) {
      drag(event);
    }
  });
  wipe.addEventListener("input", cut);
  [latent, left, right, view].forEach((control) => control.addEventListener("change", show));
  zoom.addEventListener("change", scale);
  images.forEach((row) =>
    row.forEach((image, index) =>
      image.addEventListener("click", () => {
        latent.value = String(index);
        show();
      })
    )
  );
  viewer.hidden = false;
  section.classList.add("live");
  new ResizeObserver(scale).observe(desk);
  scale();
  show();
}

for (const section of document.querySelectorAll(".pictures")) {
  const viewer = section.querySelector(".viewer");
  if (viewer) {
    start(section, viewer);
  }
}
