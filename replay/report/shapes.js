// Small shapes. Each says by its form what its colour says too.

function line(context, x, y, x2, y2) {
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x2, y2);
  context.stroke();
}

function polygon(context, ...points) {
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.closePath();
  context.fill();
}

function flag(context, x, y) {
  context.fillRect(x, y, 1.5, 12);
  polygon(context, [x + 1, y], [x + 9, y + 3.5], [x + 1, y + 7]);
}

function triangle(context, x, y, half) {
  polygon(context, [x, y - half], [x + 7, y], [x, y + half]);
}

function diamond(context, x, y, half, look) {
  for (const [size, colour] of [[half, look.card], [half * 0.7, look.start]]) {
    context.fillStyle = colour;
    polygon(context, [x - size, y], [x, y - size], [x + size, y], [x, y + size]);
  }
}

function cross(context, x, y, colour, half = 3.2) {
  context.strokeStyle = colour;
  context.lineCap = "round";
  context.lineWidth = half > 2 ? 2 : 1.5;
  context.beginPath();
  context.moveTo(x - half, y - half);
  context.lineTo(x + half, y + half);
  context.moveTo(x + half, y - half);
  context.lineTo(x - half, y + half);
  context.stroke();
  context.lineCap = "butt";
}

// Before a name: how it stands. A cross failed, a triangle is open, a dot went well, a ring was
// not ours or was cancelled.
function drawSign(context, row, x, y, look) {
  if (row.failed) return cross(context, x, y, look.bad);
  context.fillStyle = row.open ? look.accent : look.good;
  if (row.open) return polygon(context, [x - 3, y - 4.5], [x + 5, y], [x - 3, y + 4.5]);
  context.beginPath();
  context.arc(x, y, 3, 0, 7);
  if (row.style === "good") return context.fill();
  context.strokeStyle = look.quiet;
  context.lineWidth = 1.5;
  return context.stroke();
}
