// The body in 3D: turn by dragging or arrow keys, zoom by scrolling; colours, joints, and all samples as ghosts.

import * as three from "./three.module.min.js";

export const SCALE = ["#3b6fb6", "#7fc4c0", "#f2d15f", "#e2703a", "#b3242f"].map((text) => new three.Color(text));
const SKIN = new three.Color("#8fb1dd");
const START = { yaw: 0.35, pitch: 0.08, zoom: 1 };

export function colourOf(share) {
  const place = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  const low = Math.min(Math.floor(place), SCALE.length - 2);
  return SCALE[low].clone().lerp(SCALE[low + 1], place - low);
}

export class Viewer {
  constructor(canvas, body) {
    this.canvas = canvas;
    this.body = body; // faces, weights, parents
    this.renderer = new three.WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.scene = new three.Scene();
    this.camera = new three.PerspectiveCamera(28, 1, 0.1, 50);
    this.turned = new three.Group();
    this.scene.add(this.turned, new three.HemisphereLight("#ffffff", "#8a93a0", 1.9));
    for (const [x, y, z, strength] of [[1.5, 2.5, 3, 1.7], [-3, 1, -2, 0.8]]) {
      const light = new three.DirectionalLight("#ffffff", strength);
      light.position.set(x, y, z);
      this.scene.add(light);
    }
    this.view = { ...START };
    this.shown = { number: 0, spread: null, most: 1, joints: false, ghosts: false };
    this._listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // bodies: Float32Array of (1 + n) bodies; joints: the same of 24 joints each, nested lists
  load(bodies, joints) {
    const each = (this.body.weights.length / 24) * 3;
    this.clear();
    this.joints = joints;
    const faces = new three.BufferAttribute(this.body.faces, 1);
    this.meshes = joints.map((_, i) => {
      const geometry = new three.BufferGeometry();
      geometry.setAttribute("position", new three.BufferAttribute(bodies.subarray(i * each, (i + 1) * each), 3));
      geometry.setAttribute("color", new three.BufferAttribute(new Float32Array(each), 3));
      geometry.setIndex(faces);
      geometry.computeVertexNormals();
      const material = new three.MeshStandardMaterial({ vertexColors: true, roughness: 0.75 });
      return new three.Mesh(geometry, material);
    });
    this.bones = this._bones();
    this.turned.add(...this.meshes, this.bones);
    const box = new three.Box3().setFromBufferAttribute(this.meshes[0].geometry.getAttribute("position"));
    this.middle = box.getCenter(new three.Vector3());
    this.reach = box.getSize(new three.Vector3()).length() / 2;
    this.view = { ...START };
    this.show({ number: 0 });
  }

  clear() {
    this.meshes?.forEach((mesh) => mesh.geometry.dispose());
    this.meshes = null;
    this.turned.clear();
    this.renderer.clear();
  }

  show(change) {
    Object.assign(this.shown, change);
    if (!this.meshes) return;
    const { number, ghosts, joints } = this.shown;
    this.meshes.forEach((mesh, i) => {
      const main = i === number;
      mesh.visible = main || (ghosts && i > 0);
      mesh.material.transparent = !main || joints;
      mesh.material.opacity = main ? (joints ? 0.55 : 1) : 0.16;
      mesh.material.depthWrite = main && !joints;
      mesh.renderOrder = main ? 1 : 2;
      if (mesh.visible) this._paint(mesh);
    });
    this.bones.visible = joints;
    if (joints) this._place();
    this.draw();
  }

  front() {
    this.view = { yaw: 0, pitch: 0, zoom: 1 };
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !this.meshes) return;
    this.renderer.setPixelRatio(devicePixelRatio);
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    const half = (this.camera.fov * Math.PI) / 360;
    const fit = this.reach / Math.sin(Math.min(half, Math.atan(Math.tan(half) * this.camera.aspect)));
    this.camera.position.set(0, 0, (0.94 * fit) / this.view.zoom);
    this.camera.updateProjectionMatrix();
    this.turned.rotation.set(this.view.pitch, this.view.yaw, 0);
    this.turned.position.copy(this.middle).negate().applyEuler(this.turned.rotation);
    this.renderer.render(this.scene, this.camera);
  }

  _paint(mesh) {
    const colours = mesh.geometry.getAttribute("color");
    const { weights } = this.body;
    const { spread, most } = this.shown;
    for (let v = 0; v < colours.count; v++) {
      let colour = SKIN;
      if (spread) {
        let own = 0;
        for (let j = 0; j < 24; j++) own += weights[v * 24 + j] * spread[j];
        colour = colourOf(own / most);
      }
      colours.setXYZ(v, colour.r, colour.g, colour.b);
    }
    colours.needsUpdate = true;
  }

  _bones() {
    const group = new three.Group();
    const ball = new three.SphereGeometry(0.026, 20, 14);
    const stick = new three.CylinderGeometry(0.009, 0.009, 1, 10);
    this.balls = this.body.parents.map(() => new three.Mesh(ball, this._plain()));
    this.sticks = this.body.parents.map(() => new three.Mesh(stick, this._plain()));
    group.add(...this.balls, ...this.sticks.slice(1));
    return group;
  }

  _plain() {
    return new three.MeshStandardMaterial({ roughness: 0.5, depthTest: false, transparent: true });
  }

  _place() {
    const { number, spread, most } = this.shown;
    const places = this.joints[number].map((xyz) => new three.Vector3(...xyz));
    this.body.parents.forEach((parent, j) => {
      this.balls[j].position.copy(places[j]);
      this.balls[j].material.color.copy(spread ? colourOf(spread[j] / most) : new three.Color("#f0a63a"));
      this.balls[j].renderOrder = 4;
      if (parent < 0) return;
      const along = places[j].clone().sub(places[parent]);
      this.sticks[j].position.copy(places[j]).add(places[parent]).multiplyScalar(0.5);
      this.sticks[j].scale.set(1, along.length(), 1);
      this.sticks[j].quaternion.setFromUnitVectors(new three.Vector3(0, 1, 0), along.normalize());
      this.sticks[j].material.color.set("#44546a");
      this.sticks[j].renderOrder = 3;
    });
  }

  _listen() {
    const turn = (yaw, pitch) => {
      this.view.yaw += yaw;
      this.view.pitch = Math.min(Math.max(this.view.pitch + pitch, -1.5), 1.5);
      this.draw();
    };
    this.canvas.addEventListener("pointerdown", (event) => this.canvas.setPointerCapture(event.pointerId));
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) turn(event.movementX / 120, event.movementY / 120);
    });
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.view.zoom = Math.min(Math.max(this.view.zoom * Math.exp(-event.deltaY / 600), 0.4), 6);
      this.draw();
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      turn(way[0] * 0.12, way[1] * 0.12);
    });
  }
}
