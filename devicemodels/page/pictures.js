// Pictures: opened large, zoomed and moved, saved as SVG or PNG.

// A picture of its own: no variable of the page, the light colours, the page's size of text.
function standalone(svg) {
  const copy = svg.cloneNode(true);
  const [, , width, height] = svg.getAttribute("viewBox").split(/[\s,]+/).map(Number);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("font-family", "Helvetica, Arial, sans-serif");
  for (const attribute of ["tabindex", "style"]) copy.removeAttribute(attribute);
  const probe = document.createElement("i");
  probe.style.colorScheme = "light";
  document.body.append(probe);
  const text = new XMLSerializer().serializeToString(copy).replace(/var\(--([\w-]+)\)/g, (_, name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  });
  probe.remove();
  return { text, width, height };
}

function saveSvg(svg, name) {
  download(new Blob([standalone(svg).text], { type: "image/svg+xml" }), name + ".svg");
}

function savePng(svg, name) {
  const scale = 3;
  const { text, width, height } = standalone(svg);
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(scale * width);
    canvas.height = Math.round(scale * height);
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => download(blob, name + ".png"), "image/png");
  };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
}

let dialog = null;

function closePicture() {
  if (dialog && dialog.open) dialog.close();
}

// Ids are the page's: a copy in the dialog gets others.
function enlarged(picture) {
  const holder = document.createElement("template");
  if (picture.tagName === "IMG") {
    const [width, height] = [picture.naturalWidth, picture.naturalHeight];
    holder.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img"><image width="${width}" height="${height}"/></svg>`;
    const image = holder.content.querySelector("image");
    image.setAttribute("href", picture.src);
    image.style.imageRendering = getComputedStyle(picture).imageRendering;
    holder.content.firstChild.setAttribute("aria-label", picture.alt);
  } else {
    holder.innerHTML = picture.outerHTML.replace(/( id="|href="#|url\(#)p\d+-/g, "$1large-");
  }
  return holder.content.firstChild;
}

function openPicture(picture) {
  const caption = picture.closest("figure").querySelector("figcaption b");
  const what = picture.getAttribute("aria-label") || picture.alt;
  const name = slug(what);
  const svg = enlarged(picture);
  dialog.querySelector("b").textContent = caption ? caption.textContent : what;
  dialog.querySelector("p").textContent = what;
  dialog.querySelector(".stage").replaceChildren(svg);
  const isImage = picture.tagName === "IMG";
  const save = dialog.querySelector(".svg");
  save.hidden = isImage;
  save.onclick = () => saveSvg(picture, name);
  dialog.querySelector(".png").onclick = () => {
    if (isImage) fetchless(picture.src, name + ".png");
    else savePng(picture, name);
  };
  zoomable(svg);
  dialog.showModal();
}

// A data: address to a file, without the fetch that a page without network may not do.
function fetchless(source, name) {
  const bytes = Uint8Array.from(atob(source.split(",")[1]), (c) => c.charCodeAt(0));
  download(new Blob([bytes], { type: "image/png" }), name);
}

// Wheel and pinch zoom at the pointer, dragging moves, + - 0 do so from the keyboard.
function zoomable(svg) {
  const whole = svg.getAttribute("viewBox").split(/[\s,]+/).map(Number);
  let [x, y, width, height] = whole;
  const fingers = new Map();
  const draw = () => svg.setAttribute("viewBox", [x, y, width, height].join(" "));

  function at(clientX, clientY) {
    return new DOMPoint(clientX, clientY).matrixTransform(svg.getScreenCTM().inverse());
  }

  function zoom(factor, point) {
    const size = Math.min(Math.max(width / factor, whole[2] / 40), whole[2]);
    const ratio = size / width;
    x = point.x - (point.x - x) * ratio;
    y = point.y - (point.y - y) * ratio;
    width *= ratio;
    height *= ratio;
    if (size === whole[2]) [x, y, width, height] = whole;
    draw();
  }

  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), at(event.clientX, event.clientY));
  }, { passive: false });
  svg.addEventListener("dblclick", () => { [x, y, width, height] = whole; draw(); });
  svg.addEventListener("pointerdown", (event) => {
    svg.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
  });
  svg.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const other = [...fingers.values()].find((f) => f.pointerId !== event.pointerId);
    if (other) {
      const far = (e) => Math.hypot(e.clientX - other.clientX, e.clientY - other.clientY) || 1;
      zoom(far(event) / far(before), at(other.clientX, other.clientY));
    } else {
      const [a, b] = [at(before.clientX, before.clientY), at(event.clientX, event.clientY)];
      x += a.x - b.x;
      y += a.y - b.y;
      draw();
    }
    fingers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    svg.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
  dialog.onkeydown = (event) => {
    const middle = { x: x + width / 2, y: y + height / 2 };
    if (event.key === "+" || event.key === "=") zoom(1.4, middle);
    else if (event.key === "-") zoom(1 / 1.4, middle);
    else if (event.key === "0") { [x, y, width, height] = whole; draw(); }
  };
}

function pictures() {
  dialog = document.getElementById("large");
  dialog.querySelector(".close").addEventListener("click", closePicture);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) closePicture(); });
  for (const holder of document.querySelectorAll(".picture")) {
    const picture = holder.querySelector("svg, img");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "open";
    button.textContent = "⤢";
    button.title = "Enlarge, save as " + (picture.tagName === "IMG" ? "PNG" : "SVG or PNG");
    button.setAttribute("aria-label", "Enlarge: " + (picture.getAttribute("aria-label") || picture.alt));
    holder.append(button);
    button.addEventListener("click", () => openPicture(picture));
    picture.addEventListener("click", () => openPicture(picture));
  }
}
