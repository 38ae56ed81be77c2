-- Runs health.lua as Argo CD does, over objects: lua5.4 dist/argocd/health_test.lua

local folder = arg[0]:match("^(.*)/[^/]*$") or "."

local function health(object)
  -- Argo CD gives scripts no access to files and processes.
  local world = { obj = object, ipairs = ipairs, pairs = pairs, string = string, table = table, tostring = tostring }
  return assert(loadfile(folder .. "/health.lua", "t", world))()
end

local function condition(kind, status, reason, message)
  return { type = kind, status = status, reason = reason, message = message or "" }
end

local function object(kind, generation, observed, conditions)
  local status
  if observed ~= nil or conditions ~= nil then
    status = { observedGeneration = observed, conditions = conditions }
  end
  return { apiVersion = "lvs-operator.io/v1alpha1", kind = kind, metadata = { name = "web", generation = generation }, status = status }
end

local cases = {
  { "an object without a status is Progressing", "Progressing", "generation 1",
    object("VirtualService", 1) },
  { "any status of an earlier generation is Progressing", "Progressing", "generation 3",
    object("VirtualService", 3, 2, { condition("Ready", "True", "Ready") }) },
  { "a ready VirtualService is Healthy", "Healthy", "",
    object("VirtualService", 2, 2, { condition("Accepted", "True", "Accepted"), condition("Ready", "True", "Ready") }) },
  { "a VirtualService without a healthy backend is Healthy: an empty Service blocks no wave", "Healthy", "",
    object("VirtualService", 2, 2, { condition("BackendsHealthy", "False", "NoRealServers"), condition("Ready", "True", "Ready") }) },
  { "a VirtualService that a director has not programmed is Progressing, with the reason", "Progressing", "NotProgrammed: waiting for lvs1",
    object("VirtualService", 2, 2, { condition("Ready", "False", "NotProgrammed", "waiting for lvs1"), condition("Reconciling", "True", "NotProgrammed") }) },
  { "a refused VirtualService is Degraded, with the reason", "Degraded", "Conflict: shop/web has 192.0.2.1",
    object("VirtualService", 2, 2, { condition("Ready", "False", "Conflict"), condition("Stalled", "True", "Conflict", "shop/web has 192.0.2.1") }) },
  { "a false condition Stalled is not a refusal", "Healthy", "",
    object("VirtualService", 2, 2, { condition("Stalled", "False", "Fine"), condition("Ready", "True", "Ready") }) },
  { "a status without conditions is Progressing", "Progressing", "no condition",
    object("DirectorGroup", 1, 1, {}) },
  { "a ready DirectorGroup is Healthy", "Healthy", "",
    object("DirectorGroup", 4, 4, { condition("Ready", "True", "Ready") }) },
  { "a refused DirectorGroup is Degraded", "Degraded", "NoNodes: no node has the labels",
    object("DirectorGroup", 4, 4, { condition("Ready", "False", "NoNodes"), condition("Stalled", "True", "NoNodes", "no node has the labels") }) },
  { "a programmed DirectorBinding is Healthy", "Healthy", "",
    object("DirectorBinding", 1, 1, { condition("Programmed", "True", "Programmed") }) },
  { "an LvsNode whose agent is not ready is Progressing", "Progressing", "NoIpvs: the kernel has no IPVS",
    object("LvsNode", 1, 1, { condition("Ready", "False", "NoIpvs", "the kernel has no IPVS") }) },
}

local wrong = 0
for _, case in ipairs(cases) do
  local claim, status, message, sample = table.unpack(case)
  local found = health(sample)
  if found.status ~= status or not found.message:find(message, 1, true) then
    wrong = wrong + 1
    io.stderr:write(("health.lua: %s: %s, %s\n"):format(claim, found.status, found.message))
  end
end
assert(#cases > 0 and wrong == 0, wrong .. " of " .. #cases .. " cases are wrong")
print("health.lua: " .. #cases .. " cases, all correct")
