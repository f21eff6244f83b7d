// The processes of one host for PM2, with the settings in .env of the checkout: pm2 start ecosystem.config.js
const fs = require("fs");
const path = require("path");
const { parseEnv } = require("util"); // Node.js 20.12 or newer.

const checkout = path.resolve(__dirname, "../..");
const file = path.join(checkout, ".env");
const settings = fs.existsSync(file) ? parseEnv(fs.readFileSync(file, "utf8")) : {};
// PORT is the API's, the scheduler has the next one, and the workers have those after that.
const port = Number(settings.PORT || process.env.PORT || 3000);

// Each start reads .env anew, all but PORT, and nothing else: PM2 keeps what it once had in an environment, that of its
// own shell and settings that have been removed since. They come by standard input: everybody can read a command line.
function start(role, portOfInstance) {
  return `exec env -i PATH="$PATH" HOME="$HOME" PORT="${portOfInstance}" \\
.venv/bin/birthday --env-file /dev/stdin --role ${role} <<SETTINGS
$(sed 's/^[[:blank:]]*PORT[[:blank:]]*=.*//' .env)
SETTINGS`;
}

function app(role, instances, ownPort, portOfInstance = "$PORT") {
  return {
    name: role,
    cwd: checkout,
    script: "/bin/sh",
    args: ["-c", start(role, portOfInstance)],
    interpreter: "none",
    exec_mode: "fork",
    instances,
    env: { PORT: ownPort },
    kill_timeout: 40000, // More than SHUTDOWN_TIMEOUT.
    stop_exit_codes: [2], // A wrong setting does not get right by itself.
    exp_backoff_restart_delay: 500,
    merge_logs: true,
  };
}

module.exports = {
  apps: [
    app("api", 2, port), // They share their port.
    app("scheduler", 1, port + 1),
    app("worker", 1, port + 2, "$((PORT + NODE_APP_INSTANCE))"), // Each has its own, and is scraped for itself.
  ],
};
