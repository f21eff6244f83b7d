// Fastify with its JSON Schema validation and node-postgres: what a user is, in and out.

const { randomUUID } = require('node:crypto');
const Fastify = require('fastify');
const pg = require('pg');

const [database, port] = process.argv.slice(2);

// A date is a date: by default it would become an instant in the zone of the host.
pg.types.setTypeParser(pg.types.builtins.DATE, (text) => text);
const pool = new pg.Pool({ connectionString: database, max: 20 });
const app = Fastify();

const profile = {
  firstName: { type: 'string', minLength: 1, maxLength: 100 },
  lastName: { type: 'string', minLength: 1, maxLength: 100 },
  email: { type: 'string', format: 'email' },
  dateOfBirth: { type: 'string', format: 'date' },
  timezone: { type: 'string' },
};
const body = { type: 'object', required: Object.keys(profile), additionalProperties: false, properties: profile };
const user = { type: 'object', properties: { id: { type: 'string' }, ...profile } };

const CREATE = `
  INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at, updated_at)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $7)
`;
const READ = `
  SELECT id, first_name AS "firstName", last_name AS "lastName", email, date_of_birth AS "dateOfBirth", timezone
  FROM users WHERE id = $1 AND deleted_at IS NULL
`;

app.post('/users', { schema: { body, response: { 201: user } } }, async (request, reply) => {
  const id = randomUUID();
  const { firstName, lastName, email, dateOfBirth, timezone } = request.body;
  const values = [id, firstName, lastName, email, dateOfBirth, timezone, new Date()];
  await pool.query({ name: 'create', text: CREATE, values });
  reply.code(201);
  return { id, ...request.body };
});

app.get('/users/:id', { schema: { response: { 200: user } } }, async (request) => {
  const { rows } = await pool.query({ name: 'read', text: READ, values: [request.params.id] });
  return rows[0];
});

app.listen({ host: '127.0.0.1', port: Number(port) });
